"""From ids to one vector per field: a single table for all fields.

Source: FuxiCTR-style CTR models give each field a table; one table with row offsets is the same function in one lookup.
Differs: row 0 of a field (missing or unseen) is an ordinary trained row, not a zero padding vector.
"""

from itertools import groupby
from typing import Literal, NamedTuple
from urllib.parse import quote

import torch
from torch import Tensor, nn
from torch.nn import functional

from fieldctr.inputs import Inputs
from fieldctr.nn.width import learn_by_width
from fieldctr.schema import Field, Schema


class EmbeddingTable(nn.Module):
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
    the value, and row 0 when the value is missing. A vector field is its vector times a matrix of its own. It has no
    bias: a key without a vector, whose numbers are zeros, then says nothing, and is not taken for some other vector.
    """

    row_offset: Tensor
    looked_up: Tensor  # the columns whose ids are rows of the table

    def __init__(self, schema: Schema, dim: int, *, init_std: float) -> None:
        super().__init__()
        self.table = EmbeddingTable(schema.vocab_size, dim, init_std=init_std)
        self.spans = _spans(schema)
        self.maps = nn.ModuleDict()  # by field name, as a state dict can spell it
        for field in schema.fields:
            if field.vector:
                linear = nn.Linear(field.vector, dim, bias=False)
                nn.init.normal_(linear.weight, std=init_std)  # a vector of length 1 starts as wide as a row
                learn_by_width(field.vector, linear)
                self.maps[_spelled(field.name)] = linear
        rows = [
            (column + k, row)
            for field, column, row in zip(schema.fields, schema.column_offsets, schema.row_offsets, strict=True)
            for k in range(field.width)
            if not field.vector
        ]
        columns, offsets = torch.tensor(rows, dtype=torch.int32).view(-1, 2).unbind(1)
        self.register_buffer("looked_up", columns.clone(), persistent=False)
        self.register_buffer("row_offset", offsets.clone(), persistent=False)

    def forward(self, inputs: Inputs) -> Tensor:
        """(B, S) ids -> (B, F, D)."""
        return self.pooled(self.columns(inputs), inputs)

    def columns(self, inputs: Inputs) -> Tensor:
        """One vector per id column, that of a numeric field times its value: (B, S) ids -> (B, S, D)."""
        ids = inputs.ids.index_select(1, self.looked_up) if len(self.maps) else inputs.ids
        rows, maps = self.table(ids + self.row_offset), iter(self.maps.values())  # B,S,D
        if all(span.kind not in ("numeric", "vector") for span in self.spans):
            return rows
        parts = [
            next(maps)(_values(span, inputs)).unsqueeze(1) if span.kind == "vector" else _scaled(span, rows, inputs)
            for span in self.spans
        ]
        return torch.cat(parts, dim=1)

    def pooled(self, columns: Tensor, inputs: Inputs) -> Tensor:
        """A multi-valued field's columns as their mean: (B, S, D) -> (B, F, D)."""
        if all(span.kind != "multi" for span in self.spans):
            return columns
        return torch.cat([_mean(span, columns, inputs.ids) for span in self.spans], dim=1)


class FieldColumns(nn.Module):
    """Which field each id column belongs to, for a backbone that reads columns: each feature of a field is a token."""

    field_of: Tensor  # (S,)

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self.spans = _spans(schema)
        columns = [number for number, field in enumerate(schema.fields) for _ in range(field.width)]
        self.register_buffer("field_of", torch.tensor(columns), persistent=False)

    def absent(self, ids: Tensor) -> Tensor:
        """The columns that are padding: (B, S). A field without any feature keeps its first column, row 0."""
        return torch.cat([~_present(span, ids) for span in self.spans], dim=1)

    def mean(self, tokens: Tensor, ids: Tensor) -> Tensor:
        """A field's tokens as their mean without padding: (B, S, D) -> (B, F, D)."""
        return torch.cat([_mean(span, tokens, ids) for span in self.spans], dim=1)


class NoEmbedding(nn.Module):
    """Stands for the feature embeddings of a model that reads none: no table, (B, F, 0)."""

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self.num_fields = schema.num_fields

    def forward(self, inputs: Inputs) -> Tensor:
        return self.pooled(self.columns(inputs), inputs)

    def columns(self, inputs: Inputs) -> Tensor:
        return torch.empty(*inputs.ids.shape, 0, device=inputs.ids.device)

    def pooled(self, columns: Tensor, inputs: Inputs) -> Tensor:
        return columns.new_empty(len(columns), self.num_fields, 0)


class LinearTerm(nn.Module):
    """The first-order part of a logit: one weight per feature, summed over fields, and a bias. Starts at zero.

    A history has weights of its own: to have seen an item is not to be shown it. So have the public benchmarks.
    """

    def __init__(self, schema: Schema, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = FeatureEmbedding(schema.unshared(), 1, init_std=0.0)
        self.bias = nn.Parameter(torch.zeros(())) if bias else None

    def forward(self, inputs: Inputs) -> Tensor:
        """One batch -> its linear terms (B,)."""
        logit = self.weight(inputs).sum((1, 2))
        return logit if self.bias is None else logit + self.bias


class _Span(NamedTuple):
    """Neighbouring columns that are turned into fields by the same rule."""

    kind: Literal["plain", "numeric", "multi", "vector"]
    columns: slice
    rows: slice  # the same without the columns of vector fields
    values: slice  # of the value columns


def _spelled(name: str) -> str:
    """A field's name as that of a module, which may have no dot and be none of its attributes."""
    return "of_" + quote(name, safe="").replace(".", "%2E")


def _kind(field: Field) -> Literal["plain", "numeric", "multi", "vector"]:
    if field.vector:
        return "vector"
    if field.width > 1:
        return "multi"
    return "numeric" if field.numeric else "plain"


def _spans(schema: Schema) -> list[_Span]:
    spans, column, row, value, number = [], 0, 0, 0, schema.num_numeric
    for kind, run in groupby(schema.fields, key=_kind):
        fields = list(run)
        for group in [[field] for field in fields] if kind in ("multi", "vector") else [fields]:
            width = sum(field.width for field in group)
            columns, rows = slice(column, column + width), slice(row, row + width * (kind != "vector"))
            if kind == "vector":
                values = slice(number, number + group[0].vector)
                number = values.stop
            else:
                values = slice(value, value + len(group) * (kind == "numeric"))
                value = values.stop
            spans.append(_Span(kind, columns, rows, values))
            column, row = columns.stop, rows.stop
    return spans


def _values(span: _Span, inputs: Inputs) -> Tensor:
    assert inputs.values is not None, "the schema has numeric or vector fields, the batch has no values"
    return inputs.values[:, span.values]


def _scaled(span: _Span, rows: Tensor, inputs: Inputs) -> Tensor:
    rows, ids = rows[:, span.rows], inputs.ids[:, span.columns]
    if span.kind != "numeric":
        return rows
    scale = _values(span, inputs).where(ids > 0, 1.0)
    return rows * scale.unsqueeze(-1)


def _present(span: _Span, ids: Tensor) -> Tensor:
    ids = ids[:, span.columns]
    if span.kind != "multi":
        return torch.ones_like(ids, dtype=torch.bool)
    known = ids > 0
    first = torch.arange(ids.shape[1], device=ids.device) == 0
    return known | (first & ~known.any(1, keepdim=True))  # no id at all: the first column's row 0


def _mean(span: _Span, columns: Tensor, ids: Tensor) -> Tensor:
    if span.kind != "multi":
        return columns[:, span.columns]
    share = _present(span, ids).to(columns.dtype)
    share = share / share.sum(1, keepdim=True)
    return share.unsqueeze(1) @ columns[:, span.columns]  # B,1,S @ B,S,D -> B,1,D
