"""FwFM: an FM with one learned weight per field pair.

Source: Pan et al., "Field-weighted Factorization Machines", WWW 2018, equation 5.
Differs: first-order term linear in the embeddings (the paper's FiLV, in place of one weight per feature), and pair
weights drawn Xavier-normal, because LLaCTR's tables use that form.
"""

import torch
from torch import Tensor, nn

from fieldctr.inputs import Inputs
from fieldctr.nn.interaction import upper, weighted_pair_sum
from fieldctr.nn.readout import Readout
from fieldctr.schema import Schema


class FwFM(nn.Module):
    """b + sum_i <w_i, e_i> + sum_{i<j} r_ij <e_i, e_j>."""

    def __init__(self, schema: Schema, dim: int) -> None:
        super().__init__()
        self.num_fields = schema.num_fields
        self.first_order = Readout(schema.num_fields, dim, pooling="flat")
        self.pair_weight = nn.Parameter(torch.empty(schema.num_pairs).normal_(std=(2 / (schema.num_pairs + 1)) ** 0.5))

    def forward(self, emb: Tensor, inputs: Inputs) -> Tensor:
        return self.first_order(emb) + weighted_pair_sum(emb, self.pair_weight)

    def pair_weights(self) -> Tensor:
        """r as a (F, F) matrix, zero on and below the diagonal."""
        return upper(self.pair_weight.detach(), self.num_fields)
