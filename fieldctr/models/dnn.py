"""DNN: a feed-forward network on the concatenated embeddings, the floor of the deep models.

Source: Covington et al., "Deep Neural Networks for YouTube Recommendations", RecSys 2016, section 4, without that
system's inputs; the DNN of the public CTR benchmarks.
"""

from torch import Tensor, nn

from fieldctr.config import Positive, Share
from fieldctr.inputs import Inputs
from fieldctr.nn.mlp import MLP
from fieldctr.schema import Schema


class DNN(nn.Module):
    """MLP(e_1, ..., e_F)."""

    def __init__(
        self, schema: Schema, dim: int, *, hidden_dims: list[Positive], dropout: Share, batch_norm: bool
    ) -> None:
        super().__init__()
        self.mlp = MLP(schema.num_fields * dim, hidden_dims=hidden_dims, dropout=dropout, batch_norm=batch_norm)

    def forward(self, emb: Tensor, inputs: Inputs) -> Tensor:
        return self.mlp(emb.flatten(1))

    def representation(self, emb: Tensor, inputs: Inputs) -> Tensor:
        """(B, F, D) -> (B, last of hidden_dims)."""
        return self.mlp.hidden(emb.flatten(1))
