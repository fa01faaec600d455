"""Samples as rows of a sparse matrix, whose columns are the rows of the models' first-order tables.

A categorical field has a 1 in the column of its id, id 0 (missing or unseen) included. A multi-valued one has 1/k in
those of its k known ids, as the models take their mean. A numeric one has its scaled value, or a 1 that says missing.
"""

import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from fieldctr.data.dataset import Split
from fieldctr.schema import Schema

BLOCK = 1 << 16  # rows turned at a time


def matrix(schema: Schema, split: Split, scale: np.ndarray) -> Any:
    """(n, V) in float64, scipy's CSR; the values of numeric field i are divided by scale[i]."""
    sparse: Any = importlib.import_module("scipy.sparse")
    parts = [_block(schema, split, rows, scale) for rows in _blocks(split)]
    data, column, count = (np.concatenate(part) for part in zip(*parts, strict=True))
    starts = np.concatenate(([0], np.cumsum(count)))
    return sparse.csr_array((data, column, starts), (len(split), schema.unshared().by_key().vocab_size))


def scales(schema: Schema, train: Split) -> np.ndarray:
    """(N,) root of the mean square of each numeric field's known values in train; 1 where that is 0."""
    square, count = np.zeros(schema.num_numeric), np.zeros(schema.num_numeric)
    present = [start for field, start in zip(schema.fields, schema.column_offsets, strict=True) if field.numeric]
    if train.values is not None:
        for rows in _blocks(train):
            known = train.ids[rows][:, present] > 0
            square += (np.where(known, train.values[rows].astype(np.float64), 0) ** 2).sum(0)
            count += known.sum(0)
    mean = square / np.maximum(count, 1)
    return np.where(mean > 0, mean, 1.0) ** 0.5


def logits(schema: Schema, split: Split, scale: np.ndarray, weights: np.ndarray, bias: float) -> np.ndarray:
    """(n,) of a linear model with weights (V,), some rows at a time."""
    found = [matrix(schema, split.take(rows), scale) @ weights for rows in _blocks(split)]
    return np.concatenate(found) + bias


def _block(schema: Schema, split: Split, rows: slice, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values and columns of some rows, one after the other, and how many each row has."""
    ids, numeric = split.ids_of(rows), 0
    column, data = np.empty(ids.shape, np.int32), np.ones(ids.shape)  # n,S
    offsets = schema.unshared().by_key().row_offsets
    for field, start, offset in zip(schema.fields, schema.column_offsets, offsets, strict=True):
        own = slice(start, start + field.width)
        column[:, own] = ids[:, own] + offset
        if field.width > 1:
            known = ids[:, own] > 0
            data[:, own] = known / np.maximum(known.sum(1, keepdims=True), 1)
            data[~known.any(1), start] = 1
        elif field.numeric and split.values is not None:
            data[:, start] = np.where(ids[:, start] > 0, split.values[rows, numeric] / scale[numeric], 1)
            numeric += 1
    kept = data != 0
    return data[kept], column[kept], kept.sum(1)


def _blocks(split: Split) -> Iterator[slice]:
    return (slice(start, start + BLOCK) for start in range(0, len(split), BLOCK))
