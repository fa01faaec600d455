"""FinalMLP: two feed-forward streams that see differently gated features, fused by bilinear heads.

Source: Mao et al., "FinalMLP: An Enhanced Two-Stream MLP Model for CTR Prediction", AAAI 2023, equations 3 to 8, with
the gates of LLaCTR's released code: both depend on a learned vector alone, not on chosen fields of the sample.
Differs: that vector starts near zero, not at zero, where the gates' first layer would get no gradient; linear layers
start as those of the house's other networks.
"""

import torch
from torch import Tensor, nn

from fieldctr.config import Positive, Share
from fieldctr.errors import UserError
from fieldctr.inputs import Inputs
from fieldctr.nn.mlp import hidden_layers, xavier
from fieldctr.schema import Schema


class FinalMLP(nn.Module):
    """b + <w_x, x> + <w_y, y> + sum_h x_h W_h y_h, of two streams x = MLP(g_1 e) and y = MLP(g_2 e)."""

    def __init__(
        self,
        schema: Schema,
        dim: int,
        *,
        first_dims: list[Positive],
        second_dims: list[Positive],
        gate_dims: list[Positive],
        num_heads: Positive,
        dropout: Share,
    ) -> None:
        super().__init__()
        width = schema.num_fields * dim
        self.gates = nn.ModuleList(Gate(dim, gate_dims, width) for _ in range(2))
        self.streams = nn.ModuleList(hidden_layers(width, dims, dropout=dropout) for dims in (first_dims, second_dims))
        self.fusion = Fusion([width, *first_dims][-1], [width, *second_dims][-1], num_heads)

    def forward(self, emb: Tensor, inputs: Inputs) -> Tensor:
        flat = emb.flatten(1)  # B,FD
        first, second = (stream(flat * gate()) for stream, gate in zip(self.streams, self.gates, strict=True))
        with torch.autocast(emb.device.type, enabled=False):  # a logit of three digits ties in the AUC
            return self.fusion(first.float(), second.float())


class Gate(nn.Module):
    """2 sigmoid(MLP(c)), one factor per embedding dimension; c is learned."""

    def __init__(self, dim: int, hidden_dims: list[int], width: int) -> None:
        super().__init__()
        self.context = nn.Parameter(torch.empty(1, dim).normal_(std=0.01))
        self.hidden = hidden_layers(dim, hidden_dims)
        self.last = xavier(nn.Linear([dim, *hidden_dims][-1], width))

    def forward(self) -> Tensor:
        """The factors of one stream's inputs, equal for all samples: (1, width)."""
        return 2 * self.last(self.hidden(self.context)).sigmoid()


class Fusion(nn.Module):
    """Logit of two streams: each of them linearly, and their products head by head."""

    def __init__(self, first_dim: int, second_dim: int, num_heads: int) -> None:
        super().__init__()
        if first_dim % num_heads or second_dim % num_heads:
            raise UserError(
                f"model.num_heads={num_heads} must divide the last of model.first_dims and model.second_dims, "
                f"{first_dim} and {second_dim}"
            )
        self.first, self.second = (xavier(nn.Linear(dim, 1)) for dim in (first_dim, second_dim))
        shape = (num_heads, first_dim // num_heads, second_dim // num_heads)
        self.heads = nn.Parameter(nn.init.xavier_normal_(torch.empty(shape)))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """(B, first_dim), (B, second_dim) -> (B,)."""
        num_heads = len(self.heads)
        x, y = first.unflatten(1, (num_heads, -1)), second.unflatten(1, (num_heads, -1))  # B,H,X and B,H,Y
        mixed = torch.einsum("bhx,hxy->bhy", x, self.heads)
        return (self.first(first) + self.second(second)).squeeze(1) + (mixed * y).sum((1, 2))
