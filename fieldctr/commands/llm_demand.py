"""What a language model would take of a table on one GPU, by each way to use it: lines of `trainer.dry_run=true`.

The model itself need not be here: its shape decides, and a few texts of each kind tell how long they are.
"""

import math
from collections.abc import Iterator

import torch

from fieldctr.catalog import conf_dir
from fieldctr.commands.entity_vectors import author_of
from fieldctr.commands.field_vectors import alternatives, field_names
from fieldctr.config import EncoderConfig, TrainConfig, parse
from fieldctr.data.dataset import Dataset
from fieldctr.data.values import field_values
from fieldctr.errors import UserError
from fieldctr.llm.demand import LETTERS_A_TOKEN, Demand, Work, demand, mean_tokens, settings_of, shape_of, tokenizer_of
from fieldctr.llm.prompts import field_prompts

FORMULA = (
    "a pass is (2 weights of layers + 4 width of all heads x layers x tokens of a text) FLOPs a token, and costs twice "
    "that where LoRA is trained; memory is the weights, and what a micro-batch leaves in a layer, of all layers in "
    "training: (34 width + 5 heads x tokens of a text) bytes a token in 16 bits (arXiv:2205.05198)"
)


def language_model_lines(config: TrainConfig, dataset: Dataset) -> Iterator[str]:
    """Tokens, FLOPs and memory of SSFT, of KAR and of CTRL's first stage with the run's encoder; nothing without one.

    One epoch of CTRL's first stage, whose encoder learns by LoRA, reads each train row.
    """
    if not config.encoder or config.encoder.get("kind") == "random":
        return
    encoder = parse(EncoderConfig, config.encoder, "encoder")
    if encoder.dtype == "auto":
        encoder = parse(EncoderConfig, config.encoder | {"dtype": "bf16"}, "encoder")  # as on a GPU
    name = config.choice("encoder")
    try:
        shape = shape_of(settings_of(encoder, conf_dir() / "encoder" / f"{name}.json"))
    except UserError as error:
        yield f"  encoder     {name}: unknown, for {error}"
        return
    tokenizer = tokenizer_of(encoder)
    counted = f"tokens by {LETTERS_A_TOKEN} letters each" if tokenizer is None else "tokens by its own tokenizer"
    yield (
        f"  encoder     {name}: {shape.layer_weights:,} weights in {shape.layers} layers of width {shape.width:,}, "
        f"{shape.token_weights:,} of tokens; on one GPU in {encoder.dtype}, micro-batches of "
        f"{encoder.tuning.micro_batch}; {counted}. To be read or tuned:"
    )
    for title, works in what_to_do(config, dataset, encoder, tokenizer):
        found = [
            demand(shape, work, dtype=encoder.dtype, micro_batch=encoder.tuning.micro_batch)
            for work in works
            if work.texts
        ]
        if found:
            yield f"    {title:16}{told(found)}"
    yield f"    {FORMULA}"


def what_to_do(
    config: TrainConfig, dataset: Dataset, encoder: EncoderConfig, tokenizer: object
) -> Iterator[tuple[str, list[Work]]]:
    """Each way to use the model, and the texts that it reads."""
    values, names = field_values(dataset.folder), field_names(dataset)
    others = alternatives(dataset, config.dataset, values, names, encoder)
    most, tuning = encoder.max_tokens, encoder.tuning

    def each(texts: list[str]) -> float:
        return mean_tokens(tokenizer, texts, most)

    prompts, fields = field_prompts(values, names, encoder), each(names)
    asked = each([prompt.text for prompt in next(iter(others.templates.values()))])
    steps = tuning.epochs * math.ceil(len(prompts.train) / tuning.batch_size)
    yield (
        "SSFT",
        [
            Work(tuning.epochs * len(prompts.train), asked, passes=2),
            Work(steps * len(names), fields, passes=2),
            Work((tuning.epochs + 1) * len(prompts.heldout), asked),
            Work((tuning.epochs + 1) * len(names), fields),
        ],
    )
    entities = [(kind, units.count, each(units.texts)) for kind, units in others.entities.items()]
    yield "KAR", [Work(count, tokens) for _, count, tokens in entities]
    if config.knowledge:
        works = []
        for kind, count, tokens in entities:
            author = author_of(config.knowledge, kind, torch.device("cpu"))
            works.append(Work(count, tokens + each([author.asked("")]), written_each=author.new_tokens))
        yield "KAR, written", works
    yield "CTRL, stage 1", [Work(others.rows.count, each(others.rows.texts), passes=2)]


def told(found: list[Demand]) -> str:
    """One line of all of it: works follow each other, so the largest decides the memory."""
    tokens, flops = sum(one.tokens for one in found), sum(one.flops for one in found)
    weights, batch = (max(getattr(one, key) for one in found) for key in ("weights_gb", "batch_gb"))
    return f"{tokens:,.0f} tokens, {flops / 1e15:,.3g} PFLOPs, {weights:,.3g} + {batch:,.3g} GB"
