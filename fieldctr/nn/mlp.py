"""Feed-forward networks: a stack of hidden layers, and one that ends in a logit."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


class MLP(nn.Module):
    """Hidden layers, then Linear to one logit."""

    def __init__(self, in_dim: int, *, hidden_dims: Sequence[int], dropout: float, batch_norm: bool) -> None:
        super().__init__()
        self.hidden = hidden_layers(in_dim, hidden_dims, dropout=dropout, batch_norm=batch_norm)
        self.last = xavier(nn.Linear([in_dim, *hidden_dims][-1], 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_dim) -> (B,)."""
        hidden = self.hidden(x)
        with torch.autocast(x.device.type, enabled=False):  # a logit of three digits ties in the AUC
            return self.last(hidden.float()).squeeze(1)


def hidden_layers(
    in_dim: int, hidden_dims: Sequence[int], *, dropout: float = 0.0, batch_norm: bool = False
) -> nn.Sequential:
    """Linear, batch norm if asked for, ReLU, dropout, for each hidden width: (B, in_dim) -> (B, last width).

    Weights start Xavier-normal, biases at zero: the public CTR benchmarks start there and their figures depend on it.
    """
    layers: list[nn.Module] = []
    for width, next_width in pairwise([in_dim, *hidden_dims]):
        layers.append(xavier(nn.Linear(width, next_width)))
        if batch_norm:
            layers.append(BatchNorm(next_width))
        layers.append(nn.ReLU(inplace=True))  # what stands before it needs its output no more
        if dropout:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers)


class BatchNorm(nn.BatchNorm1d):
    """Batch norm that sees a batch of one row as evaluation does, by what it has seen before: one row has no spread."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, D) -> (B, D)."""
        if len(input) > 1 or not self.training:
            return super().forward(input)
        mean, var = self.running_mean, self.running_var
        return functional.batch_norm(input, mean, var, self.weight, self.bias, training=False, eps=self.eps)


def xavier(layer: nn.Linear) -> nn.Linear:
    """Give the layer back, its weight drawn Xavier-normal and its bias, if it has one, set to zero."""
    nn.init.xavier_normal_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
