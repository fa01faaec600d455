"""What a language model can read of a prepared table: the values of its fields, and whole rows, as texts."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from fieldctr.data.dataset import Dataset
from fieldctr.data.encoding import Encoding


class FieldValues(NamedTuple):
    """The known values of one field, in the order of their ids; empty for a field of kind value."""

    texts: list[str]
    counts: np.ndarray  # (values,) in train


def field_values(folder: Path) -> list[FieldValues]:
    """One entry per field of a prepared folder."""
    words = Encoding.load(folder).words
    return [
        FieldValues([], np.zeros(0))
        if known is None
        else FieldValues(known["value"].to_list(), known["count"].to_numpy())
        for known in words
    ]


def row_texts(dataset: Dataset, values: list[FieldValues], *, count: int, seed: int) -> list[str]:
    """'user id is 17; hour of the day is 9; ...' for rows drawn from train: what instance-level methods encode."""
    chosen = np.random.default_rng(seed).integers(0, len(dataset.train), count)
    return [_row_text(dataset, values, row) for row in chosen]


def _row_text(dataset: Dataset, values: list[FieldValues], row: int) -> str:
    parts, ids, numbers = [], dataset.train.ids[row], dataset.train.values
    scaled = iter(() if numbers is None else numbers[row])
    for field, known, start in zip(dataset.schema.fields, values, dataset.schema.column_offsets, strict=True):
        own = (
            [f"{next(scaled):.3g}"] if field.numeric else [known.texts[i - 1] for i in ids[start:][: field.width] if i]
        )
        parts.append(f"{field.text or field.name} is {', '.join(own) or 'unknown'}")
    return "; ".join(parts)
