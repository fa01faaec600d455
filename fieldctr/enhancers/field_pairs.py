"""From the cosine similarities of field vectors to one weight per field pair.

Source: LLaCTR's released code for `Dense`: m = W s + b over all P pairs.
Differs: `LowRank` takes W = A (x) A with a matrix A of rank r over the fields, so that m_ij = (A S A^T)_ij + b costs
O(F r) weights and, per sample, O(F r D) products: P pairs are never made. `Scaled` is m = w s + b with two numbers.

Each has forward (B, F, D) -> sum_{i<j} m_ij <e_i, e_j> (B,), and pair_weight() -> m (P,).
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from fieldctr.nn.interaction import pair_indices, pair_sum, similarities, weighted_pair_sum

Pairs = Literal["dense", "lowrank", "scalar"]


class Dense(nn.Module):
    """m = W s + b, P (P + 1) weights: every similarity speaks for every pair."""

    similarity: Tensor

    def __init__(self, similarity: Tensor) -> None:
        super().__init__()
        self.register_buffer("similarity", similarity)
        self.mix = nn.Linear(len(similarity), len(similarity))

    def pair_weight(self) -> Tensor:
        return self.mix(self.similarity)

    def forward(self, emb: Tensor) -> Tensor:
        return weighted_pair_sum(emb, self.pair_weight())


class Scaled(nn.Module):
    """m = w s + b, two weights."""

    similarity: Tensor

    def __init__(self, similarity: Tensor) -> None:
        super().__init__()
        self.register_buffer("similarity", similarity)
        self.scale = nn.Parameter(torch.ones(()))
        self.shift = nn.Parameter(torch.zeros(()))

    def pair_weight(self) -> Tensor:
        return self.scale * self.similarity + self.shift

    def forward(self, emb: Tensor) -> Tensor:
        return weighted_pair_sum(emb, self.pair_weight())


class Fixed(nn.Module):
    """m as it is: what remains of the others when nothing is learned any more."""

    weight: Tensor  # (P,)

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)

    def pair_weight(self) -> Tensor:
        return self.weight

    def forward(self, emb: Tensor) -> Tensor:
        return weighted_pair_sum(emb, self.weight)


class LowRank(nn.Module):
    """m = A S A^T + b with A = left right^T; S = N N^T, N the unit field vectors."""

    unit: Tensor  # (F, E)

    def __init__(self, vectors: Tensor, rank: int) -> None:
        super().__init__()
        num_fields = len(vectors)
        self.register_buffer("unit", functional.normalize(vectors.float(), dim=1))
        std = (rank * num_fields) ** -0.25  # entries of A near 1 / sqrt(F): then m is of the size of S
        self.left, self.right = (nn.Parameter(torch.empty(num_fields, rank).normal_(std=std)) for _ in range(2))
        self.shift = nn.Parameter(torch.zeros(()))

    def core(self) -> Tensor:
        """right^T S right, (r, r)."""
        mixed = self.right.T @ self.unit  # r,E
        return mixed @ mixed.T

    def diagonal(self, core: Tensor) -> Tensor:
        """(A S A^T)_ii, (F,)."""
        return ((self.left @ core) * self.left).sum(1)

    def pair_weight(self) -> Tensor:
        first, second = pair_indices(len(self.left), device=self.left.device)
        return (self.left @ self.core() @ self.left.T)[first, second] + self.shift

    def forward(self, emb: Tensor) -> Tensor:
        core = self.core()
        mixed = self.left.T @ emb  # r,F @ B,F,D -> B,r,D
        whole = (mixed * (core @ mixed)).sum((1, 2))  # all ordered pairs, i = j among them
        own = emb.square().sum(2) @ self.diagonal(core)  # B,F @ F -> B
        return 0.5 * (whole - own) + self.shift * pair_sum(emb)


PairAdaptor = Dense | LowRank | Scaled | Fixed


def pair_adaptor(kind: Pairs, vectors: Tensor, *, rank: int) -> PairAdaptor:
    """The adaptor of that name for field vectors (F, E)."""
    if kind == "lowrank":
        return LowRank(vectors, rank)
    return (Dense if kind == "dense" else Scaled)(similarities(vectors))
