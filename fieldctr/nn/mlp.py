"""A feed-forward network with one output."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class MLP(nn.Module):
    """Linear, batch norm if asked for, ReLU, dropout, for each hidden width; then Linear to one logit.

    Weights start Xavier-normal, biases at zero: the public CTR benchmarks start there and their figures depend on it.
    """

    def __init__(self, in_dim: int, *, hidden_dims: Sequence[int], dropout: float, batch_norm: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width, next_width in pairwise([in_dim, *hidden_dims]):
            layers.append(nn.Linear(width, next_width))
            if batch_norm:
                layers.append(nn.BatchNorm1d(next_width))
            layers.append(nn.ReLU())
            if dropout:
                layers.append(nn.Dropout(dropout))
        self.layers = nn.Sequential(*layers, nn.Linear([in_dim, *hidden_dims][-1], 1))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                xavier(layer)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_dim) -> (B,)."""
        return self.layers(x).squeeze(1)


def xavier(layer: nn.Linear) -> nn.Linear:
    """The same layer, its weight drawn Xavier-normal and its bias, if any, set to zero."""
    nn.init.xavier_normal_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
