"""What a language model can read of a prepared table: the values of its fields, and whole rows, as texts."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from fieldctr.data.dataset import Dataset
from fieldctr.data.encoding import Encoding
from fieldctr.data.shards.dictionary import VOCABULARY


class FieldValues(NamedTuple):
    """The known values of one field, in the order of their ids; empty for one of kind value or hashed."""

    texts: list[str]
    counts: np.ndarray  # (values,) in train


def field_values(folder: Path) -> list[FieldValues]:
    """One entry per field of a prepared folder."""
    encoding = Encoding.load(folder)
    tables = [encoding.vocabularies.get(spec.name, pl.DataFrame(schema=VOCABULARY)) for spec in encoding.specs]
    return [FieldValues(words["value"].to_list(), words["count"].to_numpy()) for words in tables]


def row_texts(dataset: Dataset, values: list[FieldValues], fields: list[int], *, count: int, seed: int) -> list[str]:
    """'user id is 17; hour of the day is 9; ...' for rows drawn from train: what other methods encode."""
    chosen = np.random.default_rng(seed).integers(0, len(dataset.train), count)
    return [_row_text(dataset, values, fields, row) for row in chosen]


def num_distinct(dataset: Dataset, fields: list[int]) -> int:
    """Combinations of these fields' features that occur in train; values of numeric fields do not count."""
    starts = dataset.schema.column_offsets
    columns = [starts[i] + k for i in fields for k in range(dataset.schema.fields[i].width)]
    return pl.from_numpy(dataset.train.ids_of(slice(None))[:, columns]).n_unique()


def _row_text(dataset: Dataset, values: list[FieldValues], fields: list[int], row: int) -> str:
    return "; ".join(f"{_name(dataset, i)} is {_feature(dataset, values, i, row)}" for i in fields)


def _name(dataset: Dataset, field: int) -> str:
    return dataset.schema.fields[field].text or dataset.schema.fields[field].name


def _feature(dataset: Dataset, values: list[FieldValues], field: int, row: int) -> str:
    schema = dataset.schema
    if schema.fields[field].numeric:
        assert dataset.train.values is not None
        return f"{dataset.train.values[row, sum(other.numeric for other in schema.fields[:field])]:.3g}"
    ids = dataset.train.ids_of(slice(row, row + 1))[0, schema.column_offsets[field] :][: schema.fields[field].width]
    texts = values[field].texts
    return ", ".join(texts[i - 1] for i in ids if i and texts) or "unknown"
