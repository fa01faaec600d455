"""From one token per field to a logit."""

from typing import Literal

import torch
from torch import Tensor, nn

Pooling = Literal["sum", "mean", "flat"]


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
        if self.pooling == "mean":
            tokens = tokens.mean(1, keepdim=True)
        elif self.pooling == "sum":
            tokens = tokens.sum(1, keepdim=True)
        return (tokens * self.weight).sum((1, 2)) + self.bias
