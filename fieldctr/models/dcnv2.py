"""DCN-V2: layers that multiply the embeddings by a linear map of themselves, beside a feed-forward network.

Source: Wang et al., "DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale Learning to Rank
Systems", WWW 2021, equation 1 with full matrices, in the parallel structure.
"""

import torch
from torch import Tensor, nn

from fieldctr.config import Positive, Share
from fieldctr.inputs import Inputs
from fieldctr.nn.mlp import hidden_layers, xavier
from fieldctr.schema import Schema


class DCNv2(nn.Module):
    """<w, [x_L, h]> + b with x_{l+1} = x_0 * (W_l x_l + b_l) + x_l and h the network's last hidden layer."""

    def __init__(
        self,
        schema: Schema,
        dim: int,
        *,
        num_layers: Positive,
        hidden_dims: list[Positive],
        dropout: Share,
        batch_norm: bool,
    ) -> None:
        super().__init__()
        width = schema.num_fields * dim
        self.cross = nn.ModuleList(xavier(nn.Linear(width, width)) for _ in range(num_layers))
        self.hidden = hidden_layers(width, hidden_dims, dropout=dropout, batch_norm=batch_norm)
        self.last = xavier(nn.Linear(width + [width, *hidden_dims][-1], 1))

    def forward(self, emb: Tensor, inputs: Inputs) -> Tensor:
        both = self.representation(emb, inputs)
        with torch.autocast(emb.device.type, enabled=False):  # a logit of three digits ties in the AUC
            return self.last(both.float()).squeeze(1)

    def representation(self, emb: Tensor, inputs: Inputs) -> Tensor:
        """(B, F, D) -> (B, F D + last of hidden_dims)."""
        first = crossed = emb.flatten(1)  # B,FD
        for layer in self.cross:
            crossed = torch.addcmul(crossed, first, layer(crossed))
        return torch.cat([crossed, self.hidden(first)], 1)
