"""Inner products of field pairs i < j. Pairs are numbered row by row: (0,1), (0,2), ..., (F-2,F-1)."""

import torch
from torch import Tensor
from torch.nn import functional


def pair_sum(emb: Tensor) -> Tensor:
    """sum_{i<j} <e_i, e_j>: (B, F, D) -> (B,), in O(F D) by the square of the sum (Rendle 2010, lemma 3.1)."""
    return pair_products(emb).sum(1)


def pair_products(emb: Tensor) -> Tensor:
    """sum_{i<j} e_i * e_j, one number for each dimension: (B, F, D) -> (B, D)."""
    # The gradient of half the squares is emb itself: one pass over it, where that of square() takes three.
    whole, squares = emb.sum(1), (emb * emb.detach()).sum(1)
    return 0.5 * whole.square() - (squares - 0.5 * squares.detach())


def pair_dots(emb: Tensor) -> Tensor:
    """<e_i, e_j> of every pair: (B, F, D) -> (B, P)."""
    first, second = pair_indices(emb.shape[1], device=emb.device)
    # All F*F dots in one product cost twice the arithmetic and a fraction of the memory of gathering P pairs.
    return (emb @ emb.transpose(1, 2))[:, first, second]


def weighted_pair_sum(emb: Tensor, weight: Tensor) -> Tensor:
    """sum_{i<j} weight_ij <e_i, e_j>: (B, F, D), (P,) -> (B,), without making the P dots."""
    matrix = upper(weight, emb.shape[1]).expand(len(emb), -1, -1)  # B,F,F without a copy
    mixed = matrix @ emb  # B,F,D
    return (emb * mixed).sum((1, 2))


def similarities(vectors: Tensor) -> Tensor:
    """Cosine of every pair: (F, E) -> (P,)."""
    unit = functional.normalize(vectors.float(), dim=1)
    first, second = pair_indices(len(unit), device=unit.device)
    return (unit @ unit.T)[first, second]


def upper(pairs: Tensor, num_fields: int) -> Tensor:
    """One entry per pair -> a matrix that is zero on and below the diagonal: (P, ...) -> (F, F, ...)."""
    first, second = pair_indices(num_fields, device=pairs.device)
    matrix = pairs.new_zeros(num_fields, num_fields, *pairs.shape[1:])
    return matrix.index_put((first, second), pairs)


def pair_indices(num_fields: int, *, device: torch.device) -> tuple[Tensor, Tensor]:
    """The first and the second field of every pair: two (P,)."""
    first, second = torch.triu_indices(num_fields, num_fields, 1, device=device)
    return first, second
