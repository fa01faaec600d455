"""From a prepared table and an encoder's node to field vectors: what `ssft` and `train` share."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from fieldctr.config import EncoderConfig, Template, checked, parse
from fieldctr.data.dataset import Dataset
from fieldctr.data.prepare import entities
from fieldctr.data.specs import field_specs
from fieldctr.data.values import FieldValues, field_values, num_distinct, row_texts
from fieldctr.errors import UserError
from fieldctr.llm.cost import Alternatives, Units
from fieldctr.llm.encoder import with_dtype
from fieldctr.llm.field_embeddings import FieldEmbeddings, field_embeddings
from fieldctr.llm.placebo import Source, stand_in
from fieldctr.llm.prompts import field_prompts, opaque
from fieldctr.training.progress import Progress

SAMPLE = 16  # texts of each kind in the cost account
TOGETHER = 0.05  # rise of the mean cosine that is worth a warning


def drawn(num_fields: int) -> dict[str, Tensor]:
    """Random vectors of a small language model's width, to measure a model or an enhancer that reads some."""
    return dict.fromkeys(("model", "enhancer"), torch.randn(num_fields, 384))


def embedded(
    dataset: Dataset,
    described: Mapping[str, Any],
    encoder: Mapping[str, Any],
    *,
    names: list[str],
    outputs: Path,
    device: torch.device,
) -> FieldEmbeddings:
    """The cached vectors of the dataset's fields under these names, made now if they are not there.

    `described` is the dataset's node.
    """
    config, values = settled(parse(EncoderConfig, encoder, "encoder"), device), field_values(dataset.folder)
    found = field_embeddings(
        config,
        field_prompts(values, names, config),
        root=outputs / "field_embeddings",
        device=device,
        others=lambda: alternatives(dataset, described, values, names, config),
        watch=lambda steps: Progress(total_steps=steps, step=0, batch_size=config.tuning.batch_size),
    )
    before, after = (found.account["history"][i].get("mean_cosine", 0.0) for i in (0, -1))
    if after > before + TOGETHER:
        print(f"warning: SSFT pulled the fields together: mean cosine {before:.3f} -> {after:.3f}", file=sys.stderr)
    return found


def settled(config: EncoderConfig, device: torch.device) -> EncoderConfig:
    """The same with a dtype in place of dtype=auto, and a line that says which; no dtype concerns kind random."""
    if config.dtype != "auto" or config.kind == "random":
        return config
    config, here = with_dtype(config, device), "GPU" if device.type == "cuda" else "processor"
    reason = f"native on this {here}" if config.dtype == "bf16" else f"this {here} only emulates bf16, which is slower"
    print(f"encoder.dtype=auto: {config.dtype} ({reason})", file=sys.stderr)
    return config


def alternatives(
    dataset: Dataset,
    described: Mapping[str, Any],
    values: list[FieldValues],
    names: list[str],
    config: EncoderConfig,
) -> Alternatives:
    """For the cost account: the same prompts in both templates, and the rows, users, items ... of train."""
    templates = {}
    for template in sorted(get_args(Template), key=lambda template: template != config.template):
        asked = field_prompts(values, names, replace(config, template=template)).train
        templates[template] = asked[:: -(-len(asked) // SAMPLE) or 1]
    schema, units = dataset.schema, {}
    rows = row_texts(dataset, values, list(range(schema.num_fields)), count=SAMPLE, seed=config.seed)
    for kind, fields in entities(described.get("entities"), described["fields"]).items():
        chosen = [schema.index(name) for name in fields]
        texts = row_texts(dataset, values, chosen, count=SAMPLE, seed=config.seed)
        units[kind] = Units(texts, num_distinct(dataset, chosen))
    return Alternatives(templates, Units(rows, len(dataset.train)), units)


def field_names(dataset: Dataset) -> list[str]:
    """What the language model reads of each field: its text, or its name where the YAML gives it none."""
    return [field.text or field.name for field in dataset.schema.fields]


def synonyms(described: Mapping[str, Any], key: str) -> list[str]:
    """The same in other words, as the dataset's node gives them; a field without keeps its text."""
    specs = field_specs(described["fields"], described["min_count"])
    if not any(spec.synonym for spec in specs):
        raise UserError(
            f"{key}=synonyms: no field of dataset '{described['name']}' has a synonym. "
            "Give some in its YAML, such as user_id: {synonym: account number}, or take another source"
        )
    return [spec.synonym or spec.text or spec.name for spec in specs]


def vectors_for(
    reader: Mapping[str, Any],
    name: str,
    dataset: Dataset,
    described: Mapping[str, Any],
    encoder: Mapping[str, Any],
    *,
    outputs: Path,
    device: torch.device,
    seed: int,
) -> tuple[Tensor, FieldEmbeddings]:
    """The vectors that `source` and `epoch` of the node called `name` ask for, and where they come from."""
    if not encoder:
        raise UserError(f"the {name} reads field embeddings but there is no encoder: add encoder=minilm")
    source: Source = checked(reader.get("source"), Source, f"{name}.source")
    epoch = checked(reader.get("epoch"), int | None, f"{name}.epoch")
    if source == "synonyms":
        names = synonyms(described, f"{name}.source")
    else:
        names = opaque(dataset.schema.num_fields) if source == "opaque" else field_names(dataset)
    found = embedded(dataset, described, encoder, names=names, outputs=outputs, device=device)
    if epoch is not None and not 0 <= epoch < len(found.vectors):
        raise UserError(f"{name}.epoch={epoch} is not allowed: expected null or 0 to {len(found.vectors) - 1}")
    return stand_in(found.vectors, source, epoch=epoch, seed=seed), found
