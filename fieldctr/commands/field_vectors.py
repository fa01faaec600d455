"""From a prepared table and an encoder's node to field vectors: what `ssft` and `train` share."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fieldctr.config import EncoderConfig, checked, parse
from fieldctr.data.dataset import Dataset
from fieldctr.data.values import field_values, row_texts
from fieldctr.errors import UserError
from fieldctr.llm.field_embeddings import FieldEmbeddings, Rows, field_embeddings
from fieldctr.llm.placebo import Source, stand_in
from fieldctr.llm.prompts import field_prompts, opaque
from fieldctr.llm.ssft import Record

SAMPLED_ROWS = 16  # of the cost account
TOGETHER = 0.05  # rise of the mean cosine that is worth a warning


def embedded(
    dataset: Dataset, encoder: Mapping[str, Any], *, names: list[str], outputs: Path, device: torch.device
) -> FieldEmbeddings:
    """The cached vectors of the dataset's fields under these names, made now if they are not there."""
    config, values = parse(EncoderConfig, encoder, "encoder"), field_values(dataset.folder)
    found = field_embeddings(
        config,
        field_prompts(values, names, config),
        root=outputs / "field_embeddings",
        device=device,
        rows=lambda: Rows(row_texts(dataset, values, count=SAMPLED_ROWS, seed=config.seed), len(dataset.train)),
        log=say,
    )
    before, after = (found.account["history"][i].get("mean_cosine", 0.0) for i in (0, -1))
    if after > before + TOGETHER:
        print(f"warning: SSFT pulled the fields together: mean cosine {before:.3f} -> {after:.3f}", file=sys.stderr)
    return found


def field_names(dataset: Dataset) -> list[str]:
    """What the language model reads of each field: its text, or its name where the YAML gives it none."""
    return [field.text or field.name for field in dataset.schema.fields]


def enhancer_vectors(
    dataset: Dataset,
    enhancer: Mapping[str, Any],
    encoder: Mapping[str, Any] | None,
    *,
    outputs: Path,
    device: torch.device,
    seed: int,
) -> tuple[Tensor, FieldEmbeddings]:
    """The vectors that the enhancer's `source` and `epoch` ask for, and where they come from."""
    if encoder is None:
        raise UserError("the enhancer reads field embeddings but there is no encoder: add encoder=minilm")
    source: Source = checked(enhancer.get("source"), Source, "enhancer.source")
    epoch = checked(enhancer.get("epoch"), int | None, "enhancer.epoch")
    names = opaque(dataset.schema.num_fields) if source == "opaque" else field_names(dataset)
    found = embedded(dataset, encoder, names=names, outputs=outputs, device=device)
    if epoch is not None and not 0 <= epoch < len(found.vectors):
        raise UserError(f"enhancer.epoch={epoch} is not allowed: expected null or 0 to {len(found.vectors) - 1}")
    return stand_in(found.vectors, source, epoch=epoch, seed=seed), found


def say(record: Record) -> None:
    """One line per epoch, on stderr."""
    print(spell(record), file=sys.stderr)


def spell(record: Record) -> str:
    """'epoch 1, loss 3.1, accuracy 0.4, ...'."""
    return ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in record.items())
