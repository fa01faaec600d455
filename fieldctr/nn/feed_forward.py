"""Feed-forward networks of which each token has its own."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class OwnFeedForward(nn.Module):
    """GELU(z W1 + c1) W2 + c2 with the token's own matrices: (T, B, D) -> (T, B, D)."""

    def __init__(self, num_tokens: int, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.first = OwnLinear(num_tokens, dim, hidden_dim)
        self.second = OwnLinear(num_tokens, hidden_dim, dim)

    def forward(self, z: Tensor) -> Tensor:
        return self.second(functional.gelu(self.first(z)))


class OwnLinear(nn.Module):
    """A linear layer for each token: (T, B, in_dim) -> (T, B, out_dim)."""

    def __init__(self, num_tokens: int, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_tokens, in_dim, out_dim).normal_(std=in_dim**-0.5))
        self.bias = nn.Parameter(torch.zeros(num_tokens, 1, out_dim))

    def forward(self, z: Tensor) -> Tensor:
        return torch.bmm(z, self.weight) + self.bias  # baddbmm with a broadcast bias is slow on oneDNN
