"""RankMixer: tokens exchange slices of themselves, without parameters, and each has a feed-forward network of its own.

Source: Zhu et al., "RankMixer: Scaling Up Ranking Models in Industrial Recommenders", 2025, section 3: S = LN(mix(X) +
X), X = LN(FFN_t(S) + S), as many heads as tokens, the mean token at the end. The dense form, without experts.
Differs: a token is the next T-th part of the fields' vectors in the schema's order, because groups of fields by meaning
are not in the data.
"""

import torch
from torch import Tensor, nn

from fieldctr.config import Positive, Share
from fieldctr.errors import UserError
from fieldctr.inputs import Inputs
from fieldctr.nn.feed_forward import OwnFeedForward
from fieldctr.nn.readout import Readout
from fieldctr.schema import Schema


class RankMixer(nn.Module):
    """<w, mean token> + b after `num_layers` layers over T tokens of width D."""

    def __init__(
        self,
        schema: Schema,
        dim: int,
        *,
        num_layers: Positive,
        num_tokens: Positive,
        token_dim: Positive,
        ffn_dim: Positive | None,  # null: 4 token_dim
        dropout: Share,
    ) -> None:
        super().__init__()
        width = schema.num_fields * dim
        if token_dim % num_tokens:
            raise UserError(f"model.num_tokens={num_tokens} does not divide model.token_dim={token_dim}")
        if num_tokens > width:
            raise UserError(f"model.num_tokens={num_tokens} exceeds the {width} numbers of all fields; lower it")
        self.parts = [len(part) for part in torch.empty(width).tensor_split(num_tokens)]
        self.project = nn.ModuleList(nn.Linear(part, token_dim) for part in self.parts)
        self.layers = nn.Sequential(
            *(Layer(num_tokens, token_dim, ffn_dim or 4 * token_dim, dropout=dropout) for _ in range(num_layers))
        )
        self.readout = Readout(num_tokens, token_dim, pooling="mean")

    def forward(self, emb: Tensor, inputs: Inputs) -> Tensor:
        parts = emb.flatten(1).split(self.parts, dim=1)
        tokens = torch.stack([project(part) for project, part in zip(self.project, parts, strict=True)])  # T,B,D
        return self.readout(self.layers(tokens).transpose(0, 1))


class Layer(nn.Module):
    """One post-norm layer, (T, B, D) -> (T, B, D)."""

    def __init__(self, num_tokens: int, dim: int, ffn_dim: int, *, dropout: float) -> None:
        super().__init__()
        self.mixing_norm, self.ffn_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.ffn = OwnFeedForward(num_tokens, dim, ffn_dim)
        self.dropout = nn.Dropout(dropout)  # on what the network adds

    def forward(self, x: Tensor) -> Tensor:
        s = self.mixing_norm(mixed(x) + x)
        return self.ffn_norm(self.dropout(self.ffn(s)) + s)


def mixed(x: Tensor) -> Tensor:
    """Token t gets the t-th slice of every token, in their order: (T, B, D) -> (T, B, D)."""
    slices = x.unflatten(2, (len(x), -1))  # T,B,T,D/T
    return slices.transpose(0, 2).flatten(2)
