"""DeepFM: a factorization machine and a feed-forward network on the same embeddings.

Source: Guo et al., "DeepFM: A Factorization-Machine based Neural Network for CTR Prediction", IJCAI 2017, equation 1.
Differs: the first-order term has no bias of its own, because the network's last layer has one.
"""

import torch
from torch import Tensor, nn

from fieldctr.config import Positive, Share
from fieldctr.inputs import Inputs
from fieldctr.nn.embedding import LinearTerm
from fieldctr.nn.interaction import pair_products, pair_sum
from fieldctr.nn.mlp import MLP
from fieldctr.schema import Schema


class DeepFM(nn.Module):
    """sum_i w_i + sum_{i<j} <e_i, e_j> + MLP(e_1, ..., e_F)."""

    def __init__(
        self, schema: Schema, dim: int, *, hidden_dims: list[Positive], dropout: Share, batch_norm: bool
    ) -> None:
        super().__init__()
        self.linear = LinearTerm(schema, bias=False)
        self.mlp = MLP(schema.num_fields * dim, hidden_dims=hidden_dims, dropout=dropout, batch_norm=batch_norm)

    def forward(self, emb: Tensor, inputs: Inputs) -> Tensor:
        return self.linear(inputs) + pair_sum(emb) + self.mlp(emb.flatten(1))

    def representation(self, emb: Tensor, inputs: Inputs) -> Tensor:
        """(B, F, D) -> (B, D + last of hidden_dims)."""
        return torch.cat([pair_products(emb), self.mlp.hidden(emb.flatten(1))], 1)
