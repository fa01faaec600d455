"""Vectors of the frequent values of each field, and how a sample finds those of its own."""

from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from fieldctr.nn.embedding import FieldColumns
from fieldctr.schema import Schema


class ValueVectors(NamedTuple):
    """What a language model read of the fields and of their frequent values."""

    features: Tensor  # (n, 2) int64: the field and the id of each value that was read
    rows: Tensor  # (F + n,) int64: which of the vectors is a field's, and behind all fields a value's
    vectors: Tensor  # (texts, E)


class ValueLookup(nn.Module):
    """The vector of each feature: its value's, or where none was read its field's.

    Nothing of it is saved with a model: its folder holds it once for all.
    """

    row_of: Tensor  # of each feature of each field
    first: Tensor  # (S,) the first of the column's field in it
    known: Tensor  # (S,) 1, or 0 for a column whose ids all have the field's vector
    vectors: Tensor  # (texts, E)

    def __init__(self, read: ValueVectors, schema: Schema) -> None:
        super().__init__()
        self.columns = FieldColumns(schema)
        sizes = [1 if field.vector else field.vocab_size for field in schema.fields]
        starts = torch.tensor([0, *accumulate(sizes)])[:-1]  # F
        own = read.rows[: schema.num_fields]
        row_of = torch.cat([row.expand(size) for row, size in zip(own, sizes, strict=True)])
        field, feature = read.features.T
        row_of[starts[field] + feature] = read.rows[schema.num_fields :]
        field_of = self.columns.field_of
        known = torch.tensor([not field.vector for field in schema.fields])
        self.register_buffer("row_of", row_of, persistent=False)
        self.register_buffer("first", starts[field_of], persistent=False)
        self.register_buffer("known", known.long()[field_of], persistent=False)
        self.register_buffer("vectors", read.vectors, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Which of the vectors each column has: (B, S) -> (B, S)."""
        return self.row_of[ids * self.known + self.first]

    def mapped(self, linear: nn.Module, rows: Tensor, ids: Tensor) -> Tensor:
        """The vectors through a linear map, those of a multi-valued field as their mean: (B, S) -> (B, F, r).

        Whichever is fewer is mapped, all vectors or those of the batch.
        """
        if isinstance(linear, nn.Identity) or len(self.vectors) <= rows.numel():
            columns = functional.embedding(rows, linear(self.vectors))
        else:
            columns = linear(functional.embedding(rows, self.vectors))
        return self.columns.mean(columns, ids)
