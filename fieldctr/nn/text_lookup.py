"""Vectors of the entities of a table, such as all users, and how a sample finds that of its own.

A sample's key is its ids and numbers in the fields that describe the entity. Keys are hashed to 64 bits, and the hash
is searched among the known ones: no table of the data needs another column, and new rows find what is known of them.
"""

import functools
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from fieldctr.inputs import Inputs


class TextVectors(NamedTuple):
    """What a language model read of the entities of one kind."""

    kind: str  # user, item, ...
    columns: list[int]  # whose values are the key: id columns of a sample, and S + its value columns
    factors: Tensor  # (columns,) int64, of the hash
    hashes: Tensor  # (entities,) int64 of their keys, ascending, all different
    rows: Tensor  # (entities,) int64: which of the vectors is theirs
    vectors: Tensor  # (texts, E)

    @classmethod
    def of(cls, kind: str, columns: list[int], keys: Tensor, rows: Tensor, vectors: Tensor) -> Self:
        """From different keys (entities, columns) int32, a float32 number by its bits, and the rows (entities,)."""
        draw = 0
        while True:  # ten million entities collide once in a hundred thousand draws
            odd = np.random.default_rng(draw).integers(0, 2**63, len(columns), np.int64) | 1
            factors = torch.from_numpy(odd)
            hashes, order = hashed(keys, factors).sort()
            if not (hashes.diff() == 0).any():
                return cls(kind, columns, factors, hashes, rows.long()[order], vectors)
            draw += 1


class TextLookup(nn.Module):
    """The vector of each sample's entity. Nothing of it is saved with a model: it may be larger than all weights."""

    ids: Tensor  # id columns of the key
    numbers: Tensor  # value columns of the key
    factors: Tensor
    hashes: Tensor
    rows: Tensor
    vectors: Tensor
    blank: Tensor  # (E,) of an entity that is not known

    def __init__(self, read: TextVectors, num_columns: int) -> None:
        super().__init__()
        numbers = [column - num_columns for column in read.columns if column >= num_columns]
        self.has_numbers = bool(numbers)
        # Buffers: a list would be copied to the device at each step.
        self.register_buffer("ids", torch.tensor([c for c in read.columns if c < num_columns]).long(), persistent=False)
        self.register_buffer("numbers", torch.tensor(numbers).long(), persistent=False)
        for name in ("factors", "hashes", "rows", "vectors"):
            self.register_buffer(name, getattr(read, name), persistent=False)
        self.register_buffer("blank", torch.zeros(read.vectors.shape[1]), persistent=False)

    def forward(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """One batch -> vectors (B, E), and whether each is known (B,)."""
        rows, known = self.find(inputs)
        return torch.where(known[:, None], self.vectors.index_select(0, rows), self.blank), known

    def find(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """One batch -> which text is each sample's (B,), and whether it has one (B,); any where it has none."""
        keys = inputs.ids.index_select(1, self.ids)
        if self.has_numbers:
            assert inputs.values is not None, "the entity has numeric fields, the batch has no values"
            bits = inputs.values.index_select(1, self.numbers).view(torch.int32)
            keys = torch.cat([keys, bits.to(keys.dtype)], dim=1)
        own = hashed(keys, self.factors)
        place = torch.searchsorted(self.hashes, own).clamp(max=len(self.hashes) - 1)
        known = self.hashes.index_select(0, place) == own
        return self.rows.index_select(0, place), known

    def replace(self, vectors: Tensor, blank: Tensor) -> None:
        """Other vectors for the same texts (texts, width), and for an entity that is not known (width,)."""
        self.vectors, self.blank = vectors, blank


def hashed(keys: Tensor, factors: Tensor) -> Tensor:
    """A sum of products modulo 2**64: (n, columns) -> (n,). One by one: ONNX Runtime's own sum goes through floats."""
    return functools.reduce(torch.add, (keys.long() * factors).unbind(1))
