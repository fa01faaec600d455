"""From ids to one vector per field: a single table for all fields.

Source: FuxiCTR-style CTR models give each field a table; one table with row offsets is the same function in one lookup.
Differs: row 0 of a field (missing or unseen) is an ordinary trained row, not a zero padding vector.
"""

from itertools import groupby
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from fieldctr.schema import Field, Schema


class Inputs(NamedTuple):
    """One batch of samples without their labels."""

    ids: Tensor  # (B, S) int32, local ids; S = sum of the fields' widths
    values: Tensor | None = None  # (B, N) float32, one column per numeric field; 0 where missing


class Table(nn.Module):
    """The rows of all features. Every embedding weight of a model is the `weight` (V, dim) of one of these.

    `sparse` is for the optimizer: True makes the gradient a sparse tensor that holds the batch's rows only.
    """

    def __init__(self, num_rows: int, dim: int, *, init_std: float) -> None:
        super().__init__()
        self.sparse = False
        self.weight = nn.Parameter(torch.empty(num_rows, dim).normal_(std=init_std))

    def forward(self, rows: Tensor) -> Tensor:
        """Integers of any shape -> (..., dim)."""
        # Not weight[rows]: the backward of indexing is several times slower on a CPU.
        return functional.embedding(rows, self.weight, sparse=self.sparse)


class FeatureEmbedding(nn.Module):
    """One vector per field: its feature's row, the mean row of its features, or its row times its value.

    A multi-valued field is the mean over its non-zero ids and row 0 when it has none; a numeric field is row 1 times
    the value, and row 0 when the value is missing.
    """

    row_offset: Tensor

    def __init__(self, schema: Schema, dim: int, *, init_std: float) -> None:
        super().__init__()
        self.table = Table(schema.vocab_size, dim, init_std=init_std)
        self.spans = _spans(schema)
        columns = [
            start for start, field in zip(schema.row_offsets, schema.fields, strict=True) for _ in range(field.width)
        ]
        self.register_buffer("row_offset", torch.tensor(columns, dtype=torch.int32), persistent=False)

    def forward(self, inputs: Inputs) -> Tensor:
        """(B, S) ids -> (B, F, D)."""
        rows = self.table(inputs.ids + self.row_offset)  # B,S,D
        if all(span.kind == "plain" for span in self.spans):
            return rows
        return torch.cat([_fields(span, rows, inputs) for span in self.spans], dim=1)


class NoEmbedding(nn.Module):
    """Stands for the feature embeddings of a model that reads none: no table, (B, F, 0)."""

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self.num_fields = schema.num_fields

    def forward(self, inputs: Inputs) -> Tensor:
        return torch.empty(len(inputs.ids), self.num_fields, 0, device=inputs.ids.device)


class LinearTerm(nn.Module):
    """The first-order part of a logit: one weight per feature, summed over fields, and a bias. Starts at zero."""

    def __init__(self, schema: Schema, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = FeatureEmbedding(schema, 1, init_std=0.0)
        self.bias = nn.Parameter(torch.zeros(())) if bias else None

    def forward(self, inputs: Inputs) -> Tensor:
        """-> (B,)."""
        logit = self.weight(inputs).sum((1, 2))
        return logit if self.bias is None else logit + self.bias


class _Span(NamedTuple):
    """Neighbouring columns that are turned into fields by the same rule."""

    kind: Literal["plain", "numeric", "multi"]
    columns: slice
    values: slice  # of the numeric fields' value columns


def _kind(field: Field) -> Literal["plain", "numeric", "multi"]:
    if field.width > 1:
        return "multi"
    return "numeric" if field.numeric else "plain"


def _spans(schema: Schema) -> list[_Span]:
    spans, column, value = [], 0, 0
    for kind, run in groupby(schema.fields, key=_kind):
        fields = list(run)
        for group in [[field] for field in fields] if kind == "multi" else [fields]:
            width = sum(field.width for field in group)
            count = len(group) if kind == "numeric" else 0
            spans.append(_Span(kind, slice(column, column + width), slice(value, value + count)))
            column, value = column + width, value + count
    return spans


def _fields(span: _Span, rows: Tensor, inputs: Inputs) -> Tensor:
    rows, ids = rows[:, span.columns], inputs.ids[:, span.columns]
    if span.kind == "plain":
        return rows
    if span.kind == "numeric":
        assert inputs.values is not None, "the schema has numeric fields, the batch has no values"
        scale = inputs.values[:, span.values].where(ids > 0, 1.0)
        return rows * scale.unsqueeze(-1)
    known = ids > 0
    first = torch.arange(ids.shape[1], device=ids.device) == 0
    share = (known | (first & ~known.any(1, keepdim=True))).to(rows.dtype)  # no id at all: the first column's row 0
    share = share / share.sum(1, keepdim=True)
    return share.unsqueeze(1) @ rows  # B,1,S @ B,S,D -> B,1,D
