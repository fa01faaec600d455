"""Embedding tables of eight bits, with one scale for each row."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from fieldctr.nn.embedding import EmbeddingTable

LARGEST = 127


class Int8Table(nn.Module):
    """The rows of an embedding table, each as whole numbers of its largest entry over 127."""

    weight: Tensor  # (V, D) int8
    scale: Tensor  # (V, 1) float32

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        scale = weight.abs().amax(1, keepdim=True) / LARGEST
        self.register_buffer("scale", scale)
        self.register_buffer("weight", (weight / scale.where(scale > 0, 1)).round().to(torch.int8))

    def forward(self, rows: Tensor) -> Tensor:
        """Integers of any shape -> (..., dim)."""
        return functional.embedding(rows, self.weight).float() * functional.embedding(rows, self.scale)


class Saved(NamedTuple):
    """What the tables take, in bytes."""

    before: int
    after: int


@torch.no_grad()
def to_int8(model: nn.Module) -> Saved:
    """Replace the model's tables, in place. One of width 1 stays: with its scale it would be larger."""
    before = after = 0
    for module in list(model.modules()):
        for name, table in list(module.named_children()):
            if not isinstance(table, EmbeddingTable):
                continue
            rows, width = table.weight.shape
            before += 4 * rows * width
            if width > 1:
                setattr(module, name, Int8Table(table.weight))
            after += rows * (width + 4 if width > 1 else 4)
    return Saved(before, after)
