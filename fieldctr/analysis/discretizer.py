"""Rows as one category per field: what counts per value need, whatever the kind of the field.

That of a categorical field is its id. A multi-valued field's list is one category, by a hash, and a numeric field's
number its bin. Category 0 is a row without a known value.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from fieldctr.data.dataset import Split
from fieldctr.data.hashing import GOLDEN
from fieldctr.data.numbers import Binning, fit_bins
from fieldctr.schema import Schema

BLOCK_ROWS = 1 << 16  # in memory at a time
BINS = 32  # of a numeric field
BUCKETS = 1 << 16  # of a multi-valued field's lists: a few of many thousand share one


@dataclass(frozen=True)
class Discretizer:
    """What turns the rows of one schema into categories."""

    schema: Schema
    bins: tuple[Binning, ...]  # one per numeric field

    @classmethod
    def of(cls, schema: Schema, train: Split) -> Self:
        """The discretizer of a schema, its bins at the quantiles of train."""
        values = train.values if train.values is not None else np.empty((len(train), 0))
        columns = range(schema.num_numeric)
        blocks = [slice(start, start + BLOCK_ROWS) for start in range(0, len(train), BLOCK_ROWS)]
        present = _numeric_columns(schema)
        known = [[train.ids[rows, present[i]] > 0 for rows in blocks] for i in columns]
        return cls(
            schema,
            tuple(
                fit_bins((values[rows, i][seen] for rows, seen in zip(blocks, known[i], strict=True)), BINS)
                for i in columns
            ),
        )

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Per field the number of its categories, 0 included."""
        bins = iter(self.bins)
        return tuple(
            len(next(bins).edges) + 2 if field.numeric else BUCKETS + 1 if field.width > 1 else field.vocab_size
            for field in self.schema.fields
        )

    def categories(self, ids: np.ndarray, values: np.ndarray | None) -> np.ndarray:
        """(F, n) int32 of rows given as ids (n, S) and values (n, N)."""
        categories = np.empty((self.schema.num_fields, len(ids)), np.int32)
        numeric = 0
        for i, (field, start) in enumerate(zip(self.schema.fields, self.schema.column_offsets, strict=True)):
            if field.numeric and values is not None:
                categories[i] = np.where(ids[:, start] > 0, self.bins[numeric].ids(values[:, numeric]), 0)
                numeric += 1
            else:
                categories[i] = ids[:, start] if field.width == 1 else hash_lists(ids[:, start : start + field.width])
        return categories

    def blocks(self, split: Split) -> Iterator[tuple[slice, np.ndarray]]:
        """Row ranges of a split with their categories, in order."""
        for start in range(0, len(split), BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            yield rows, self.categories(split.ids_of(rows), None if split.values is None else split.values[rows])


def hash_lists(ids: np.ndarray) -> np.ndarray:
    """(n,) int32 in 0..BUCKETS from lists of ids (n, W): 0 for an empty list."""
    mixed = np.zeros(len(ids), np.uint64)
    for column in ids.T:
        mixed = (mixed + column.astype(np.uint64)) * GOLDEN
        mixed ^= mixed >> np.uint64(29)
    return np.where(ids.any(axis=1), mixed % np.uint64(BUCKETS) + np.uint64(1), 0).astype(np.int32)


def _numeric_columns(schema: Schema) -> list[int]:
    return [start for field, start in zip(schema.fields, schema.column_offsets, strict=True) if field.numeric]
