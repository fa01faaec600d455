"""Which fields have names close in meaning, and sums over them: what fusion enhancers share."""

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from fieldctr.errors import UserError
from fieldctr.schema import Schema

MATRIX = 256  # fields, up to which a product with a matrix of mostly zeros is faster than gathering 4 to 8 neighbours


def unit_vectors(schema: Schema, field_embeddings: Tensor) -> Tensor:
    """(F, E) of length 1. UserError where there is not one vector for each field."""
    if len(field_embeddings) != schema.num_fields:
        raise UserError(f"enhancer: {len(field_embeddings)} field vectors for {schema.num_fields} fields")
    return functional.normalize(field_embeddings.float(), dim=1)


def nearest_fields(unit: Tensor, count: int | None) -> tuple[Tensor, Tensor]:
    """Of each field the `count` others of the highest cosine, all of them for None: cosines and fields, two (F, k)."""
    others = len(unit) - 1
    cosine = (unit @ unit.T).fill_diagonal_(-torch.inf)
    return cosine.topk(others if count is None else min(count, others), dim=1)


def mixed(emb: Tensor, weight: Tensor, fields: Tensor) -> Tensor:
    """sum_k weight_ik e_fields(i,k) for each field i: (B, F, D), (F, k), (F, k) -> (B, F, D)."""
    num_fields, count = fields.shape
    return (by_matrix if num_fields <= MATRIX or count == num_fields - 1 else by_neighbour)(emb, weight, fields)


def by_matrix(emb: Tensor, weight: Tensor, fields: Tensor) -> Tensor:
    """`mixed` as a product with a matrix (F, F), mostly of zeros."""
    num_fields = len(fields)
    return weight.new_zeros(num_fields, num_fields).scatter(1, fields, weight) @ emb


def by_neighbour(emb: Tensor, weight: Tensor, fields: Tensor) -> Tensor:
    """`mixed` in O(F k) a sample, one neighbour of every field after the other."""
    total = torch.zeros_like(emb)
    for own, field in zip(weight.T, fields.T, strict=True):
        if own.requires_grad:  # its gradient needs what was gathered: made anew, as k copies of emb would be too many
            part = checkpoint(_scaled, emb, own, field, use_reentrant=False, preserve_rng_state=False)
        else:
            part = _scaled(emb, own, field)
        total = total + part
    return total


def _scaled(emb: Tensor, weight: Tensor, field: Tensor) -> Tensor:
    return weight.unsqueeze(1) * emb.index_select(1, field)
