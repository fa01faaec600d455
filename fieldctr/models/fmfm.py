"""FmFM: an FM with one learned matrix per field pair.

Source: Sun et al., "FM^2: Field-matrixed Factorization Machines for Recommender Systems", WWW 2021, equation 8.
Differs: no global bias, because LLaCTR's tables have none.
"""

import torch
from torch import Tensor, nn

from fieldctr.inputs import Inputs
from fieldctr.nn.embedding import LinearTerm
from fieldctr.nn.interaction import upper
from fieldctr.schema import Schema


class FmFM(nn.Module):
    """sum_i w_i + sum_{i<j} e_i M_ij e_j."""

    def __init__(self, schema: Schema, dim: int) -> None:
        super().__init__()
        self.linear = LinearTerm(schema, bias=False)
        self.pair_matrix = nn.Parameter(nn.init.xavier_normal_(torch.empty(schema.num_pairs, dim, dim)))

    def forward(self, emb: Tensor, inputs: Inputs) -> Tensor:
        return self.linear(inputs) + self.pair_term(emb)

    def pair_term(self, emb: Tensor) -> Tensor:
        """(B, F, D) -> (B,): all pairs as one bilinear form of the flattened embedding.

        Half of its blocks are zero, yet one product beats F - 1 smaller ones and never makes a (B, P, D) tensor.
        """
        flat = emb.flatten(1)  # B,FD
        blocks = upper(self.pair_matrix, emb.shape[1])  # F,F,D,D
        form = blocks.transpose(1, 2).reshape(flat.shape[1], flat.shape[1])  # FD,FD
        return (flat @ form * flat).sum(1)
