"""WuKong: stacked layers, each a factorization machine beside a linear compression.

Source: Zhang et al., "Wukong: Towards a Scaling Law for Large-Scale Recommendation" (arXiv:2403.02545), section 3, in
the form of LLaCTR's released code: both blocks flatten the fields, and one linear layer makes F vectors of them again.
Differs: linear layers start as those of the house's other networks.
"""

import torch
from torch import Tensor, nn

from fieldctr.config import Positive, Share
from fieldctr.inputs import Inputs
from fieldctr.nn.mlp import MLP, hidden_layers, xavier
from fieldctr.schema import Schema


class WuKong(nn.Module):
    """MLP of the fields' vectors after `num_layers` layers."""

    def __init__(
        self,
        schema: Schema,
        dim: int,
        *,
        num_layers: Positive,
        project_dim: Positive,
        fm_hidden: list[Positive],
        fm_dim: Positive,
        compression_dim: Positive,
        hidden_dims: list[Positive],
        dropout: Share,
    ) -> None:
        super().__init__()
        fm_dims = [*fm_hidden, fm_dim]
        self.layers = nn.Sequential(
            *(
                Layer(schema.num_fields, dim, project_dim, fm_dims, compression_dim, dropout=dropout)
                for _ in range(num_layers)
            )
        )
        self.mlp = MLP(schema.num_fields * dim, hidden_dims=hidden_dims, dropout=0.0, batch_norm=False)

    def forward(self, emb: Tensor, inputs: Inputs) -> Tensor:
        return self.mlp(self.layers(emb).flatten(1))


class Layer(nn.Module):
    """LN(X + Linear([FM(X), compress(X)])); FM(X) = ReLU MLP of LN(X X^T Y)."""

    def __init__(
        self, num_fields: int, dim: int, project_dim: int, fm_dims: list[int], compression_dim: int, *, dropout: float
    ) -> None:
        super().__init__()
        width = num_fields * dim
        self.project = nn.Parameter(torch.randn(num_fields, project_dim))
        self.fm = nn.Sequential(
            nn.LayerNorm(num_fields * project_dim), *hidden_layers(num_fields * project_dim, fm_dims)
        )
        self.compress = nn.Sequential(xavier(nn.Linear(width, compression_dim)), nn.Dropout(dropout))
        self.merge = xavier(nn.Linear(fm_dims[-1] + compression_dim, width))
        self.norm = nn.LayerNorm([num_fields, dim])

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, F, D) -> (B, F, D)."""
        dots = tokens @ (tokens.transpose(1, 2) @ self.project)  # B,F,project_dim; in this order F*F is never made
        merged = self.merge(torch.cat([self.fm(dots.flatten(1)), self.compress(tokens.flatten(1))], 1))  # B,FD
        return self.norm(tokens + merged.unflatten(1, tokens.shape[1:]))
