"""Factorization machine: every pair of features interacts through the inner product of two vectors.

Source: Rendle, "Factorization Machines", ICDM 2010, equation 1.
"""

from torch import Tensor, nn

from fieldctr.inputs import Inputs
from fieldctr.nn.embedding import LinearTerm
from fieldctr.nn.interaction import pair_products, pair_sum
from fieldctr.schema import Schema


class FM(nn.Module):
    """b + sum_i w_i + sum_{i<j} <e_i, e_j>."""

    def __init__(self, schema: Schema, dim: int) -> None:
        super().__init__()
        self.linear = LinearTerm(schema)

    def forward(self, emb: Tensor, inputs: Inputs) -> Tensor:
        return self.linear(inputs) + pair_sum(emb)

    def representation(self, emb: Tensor, inputs: Inputs) -> Tensor:
        """(B, F, D) -> (B, D)."""
        return pair_products(emb)
