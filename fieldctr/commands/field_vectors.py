"""From a prepared table and an encoder's node to field vectors: what `ssft` and `train` share."""

import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from fieldctr.config import EncoderConfig, Template, checked, parse
from fieldctr.data.dataset import Dataset
from fieldctr.data.fields.specs import field_specs
from fieldctr.data.prepare import entities
from fieldctr.data.values import FieldValues, field_values, num_distinct, row_texts
from fieldctr.errors import UserError
from fieldctr.llm.cost import Alternatives, Units
from fieldctr.llm.encoder import with_dtype
from fieldctr.llm.field_embeddings import FieldEmbeddings, field_embeddings
from fieldctr.llm.placebo import Source, stand_in
from fieldctr.llm.prompts import field_prompts, opaque
from fieldctr.training.progress import Progress

SAMPLE_TEXTS = 16  # of each kind in the cost account
COSINE_RISE = 0.05  # rise of the mean cosine that is worth a warning


def drawn(num_fields: int) -> dict[str, Tensor]:
    """Random vectors of a small language model's width, to measure a model or an enhancer that reads some."""
    return dict.fromkeys(("model", "enhancer"), torch.randn(num_fields, 384))


def embed_fields(
    dataset: Dataset,
    dataset_node: Mapping[str, Any],
    encoder_node: Mapping[str, Any],
    *,
    names: list[str],
    outputs: Path,
    device: torch.device,
) -> FieldEmbeddings:
    """The cached vectors of the dataset's fields under these names, made now if they are not there.

    `dataset_node` and `encoder_node` are those of the configuration.
    """
    config, values = settled(parse(EncoderConfig, encoder_node, "encoder"), device), field_values(dataset.folder)
    prompts = field_prompts(values, names, config)
    embeddings = field_embeddings(
        config,
        prompts,
        root=outputs / "field_embeddings",
        device=device,
        others=lambda: alternatives(dataset, dataset_node, values, names, config),
        watch=lambda steps: _watched(steps, config, len(prompts.train), len(names)),
    )
    before, after = (embeddings.account["history"][i].get("mean_cosine", 0.0) for i in (0, -1))
    if after > before + COSINE_RISE:
        print(f"warning: SSFT pulled the fields together: mean cosine {before:.3f} -> {after:.3f}", file=sys.stderr)
    return embeddings


def _watched(steps: int, config: EncoderConfig, prompts: int, fields: int) -> Progress:
    """Say what is to come, before the first step; how long it will take is known after a few."""
    progress = Progress(total_steps=steps, step=0, batch_size=config.tuning.batch_size)
    progress.say(what_comes(steps, config, prompts, fields))
    return progress


def what_comes(steps: int, config: EncoderConfig, prompts: int, fields: int) -> str:
    """Of one call that makes field vectors."""
    if not steps:
        return f"field vectors of {fields} fields, without tuning: one pass of the language model, seconds"
    return (
        f"SSFT: {prompts:,} prompts of {fields} fields, {config.tuning.epochs} epochs, {steps:,} steps; then the cost "
        "account. The time left is said as it runs; the vectors are kept, and the next call takes none"
    )


def settled(config: EncoderConfig, device: torch.device) -> EncoderConfig:
    """The configuration with a dtype in place of dtype=auto, which a line names; kind random has no dtype."""
    if config.dtype != "auto" or config.kind == "random":
        return config
    config, here = with_dtype(config, device), "GPU" if device.type == "cuda" else "processor"
    reason = f"native on this {here}" if config.dtype == "bf16" else f"this {here} only emulates bf16, which is slower"
    print(f"encoder.dtype=auto: {config.dtype} ({reason})", file=sys.stderr)
    return config


def alternatives(
    dataset: Dataset,
    dataset_node: Mapping[str, Any],
    values: list[FieldValues],
    names: list[str],
    config: EncoderConfig,
) -> Alternatives:
    """For the cost account: the same prompts in both templates, and the rows, users, items ... of train."""
    templates = {}
    for template in sorted(get_args(Template), key=lambda template: template != config.template):
        prompts = field_prompts(values, names, replace(config, template=template)).train
        step = max(1, math.ceil(len(prompts) / SAMPLE_TEXTS))
        templates[template] = prompts[::step]
    schema, units = dataset.schema, {}
    rows = row_texts(dataset, values, list(range(schema.num_fields)), count=SAMPLE_TEXTS, seed=config.seed)
    for kind, fields in entities(dataset_node.get("entities"), dataset_node["fields"]).items():
        chosen = [schema.index(name) for name in fields]
        texts = row_texts(dataset, values, chosen, count=SAMPLE_TEXTS, seed=config.seed)
        units[kind] = Units(texts, num_distinct(dataset, chosen))
    return Alternatives(templates, Units(rows, len(dataset.train)), units)


def field_names(dataset: Dataset) -> list[str]:
    """What the language model reads of each field: its text, or its name where the YAML gives it none."""
    return [field.text or field.name for field in dataset.schema.fields]


def synonyms(dataset_node: Mapping[str, Any], key: str, texts: Mapping[str, str] | None = None) -> list[str]:
    """The fields' names in other words, as the dataset's node gives them; a field without keeps its text.

    Where the table's `texts` are others than the node's, as the source has names of its own, none are in other words.
    """
    specs = field_specs(dataset_node["fields"], dataset_node["min_count"])
    if not any(spec.synonym and (texts or {}).get(spec.name, spec.text) == spec.text for spec in specs):
        raise UserError(
            f"{key}=synonyms: no field of dataset '{dataset_node['name']}' has a synonym. "
            "Give some in its YAML, such as user_id: {synonym: account number}, or take another source"
        )
    return [spec.synonym or spec.text or spec.name for spec in specs]


def vectors_for(
    reader_node: Mapping[str, Any],
    name: str,
    dataset: Dataset,
    dataset_node: Mapping[str, Any],
    encoder_node: Mapping[str, Any],
    *,
    outputs: Path,
    device: torch.device,
    seed: int,
) -> tuple[Tensor, FieldEmbeddings]:
    """The vectors that `source` and `epoch` of the `reader_node`, called `name`, ask for, and where they come from."""
    if not encoder_node:
        raise UserError(f"the {name} reads field embeddings but there is no encoder: add encoder=minilm")
    source: Source = checked(reader_node.get("source"), Source, f"{name}.source")
    epoch = checked(reader_node.get("epoch"), int | None, f"{name}.epoch")
    if source == "synonyms":
        texts = {field.name: field.text for field in dataset.schema.fields}
        names = synonyms(dataset_node, f"{name}.source", texts)
    else:
        names = opaque(dataset.schema.num_fields) if source == "opaque" else field_names(dataset)
    embeddings = embed_fields(dataset, dataset_node, encoder_node, names=names, outputs=outputs, device=device)
    last = len(embeddings.vectors) - 1
    if epoch is not None and not 0 <= epoch <= last:
        raise UserError(f"{name}.epoch={epoch} is not allowed: expected null or 0 to {last}")
    return stand_in(embeddings.vectors, source, epoch=epoch, seed=seed), embeddings
