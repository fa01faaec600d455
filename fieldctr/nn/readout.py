"""From one token per field to a logit."""

from typing import Literal

import torch
from torch import Tensor, nn

from fieldctr.nn.mlp import MLP

Pooling = Literal["sum", "mean", "flat"]
Head = Literal["linear", "mlp"]


class Readout(nn.Module):
    """Pool the fields (`sum` or `mean`; `flat` keeps them apart), then one linear layer.

    Starts small: the sum of F tokens is F times as large as their mean, and a large first logit is never unlearned.
    """

    def __init__(self, num_fields: int, dim: int, *, pooling: Pooling) -> None:
        super().__init__()
        self.pooling = pooling
        tokens = 1 if pooling == "mean" else num_fields
        self.weight = nn.Parameter(torch.empty(num_fields if pooling == "flat" else 1, dim))
        nn.init.normal_(self.weight, std=1 / (tokens * dim**0.5))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, F, D) -> (B,)."""
        # Products and sums, not matmul: autocast leaves them in fp32, and a logit of three digits ties in the AUC.
        return (pooled(tokens, self.pooling) * self.weight).sum((1, 2)) + self.bias


class DeepReadout(nn.Module):
    """Pool the fields, then one hidden layer of D units."""

    def __init__(self, num_fields: int, dim: int, *, pooling: Pooling) -> None:
        super().__init__()
        self.pooling = pooling
        width = dim * num_fields if pooling == "flat" else dim
        self.net = MLP(width, hidden_dims=[dim], dropout=0.0, batch_norm=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, F, D) -> (B,)."""
        # The mean for a sum as well: the layer starts at the scale of one token either way.
        return self.net(pooled(tokens, "mean" if self.pooling == "sum" else self.pooling).flatten(1))


def readout(head: Head, num_fields: int, dim: int, *, pooling: Pooling) -> nn.Module:
    """The head of that name."""
    return (DeepReadout if head == "mlp" else Readout)(num_fields, dim, pooling=pooling)


def pooled(tokens: Tensor, pooling: Pooling) -> Tensor:
    """(B, F, D) -> (B, 1, D), or as it is under `flat`."""
    if pooling == "flat":
        return tokens
    return tokens.mean(1, keepdim=True) if pooling == "mean" else tokens.sum(1, keepdim=True)
