"""xDeepFM: a compressed interaction network (CIN) beside a feed-forward network and a first-order term.

Source: Lian et al., "xDeepFM: Combining Explicit and Implicit Feature Interactions for Recommender Systems", KDD 2018,
sections 3.1 and 3.3, with the identity as the CIN's activation, which the paper finds best.
Differs: the first-order term and the CIN have no bias of their own, because the network's last layer has one.
"""

from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fieldctr.config import Positive, Share
from fieldctr.inputs import Inputs
from fieldctr.nn.embedding import LinearTerm
from fieldctr.nn.mlp import MLP, xavier
from fieldctr.schema import Schema

PRODUCTS = 1 << 19  # held at a time: 2 MB stay in a core's cache, 4 MB and more cost up to 20 % more


class XDeepFM(nn.Module):
    """sum_i w_i + CIN(e_1, ..., e_F) + MLP(e_1, ..., e_F)."""

    def __init__(
        self,
        schema: Schema,
        dim: int,
        *,
        cin_dims: list[Positive],
        hidden_dims: list[Positive],
        dropout: Share,
        batch_norm: bool,
    ) -> None:
        super().__init__()
        self.linear = LinearTerm(schema, bias=False)
        self.cin = CIN(schema.num_fields, cin_dims)
        self.mlp = MLP(schema.num_fields * dim, hidden_dims=hidden_dims, dropout=dropout, batch_norm=batch_norm)

    def forward(self, emb: Tensor, inputs: Inputs) -> Tensor:
        return self.linear(inputs) + self.cin(emb) + self.mlp(emb.flatten(1))


class CIN(nn.Module):
    """sum_k <w_k, p_k>, p_k the sums over D of layer k's maps x^k_h = sum_ij W^k_hij x^{k-1}_i * x^0_j."""

    def __init__(self, num_fields: int, dims: list[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            xavier(nn.Linear(maps * num_fields, next_maps, bias=False))
            for maps, next_maps in pairwise([num_fields, *dims])
        )
        self.weight = nn.Parameter(torch.empty(sum(dims)).normal_(std=sum(dims) ** -0.5))

    def forward(self, emb: Tensor) -> Tensor:
        """(B, F, D) -> (B,)."""
        first = emb.transpose(1, 2).flatten(0, 1)  # BD,F
        maps, sums = first, []
        for layer in self.layers:
            maps = crossed(maps, first, layer)
            sums.append(maps.unflatten(0, (len(emb), -1)).float().sum(1))  # B,maps
        return (torch.cat(sums, 1) * self.weight).sum(1)


def crossed(maps: Tensor, first: Tensor, layer: nn.Module) -> Tensor:
    """All products of a row's maps and fields through a linear layer: (n, maps), (n, F) -> (n, next_maps).

    Piece by piece, and the products made again for the backward pass: at 39 fields, 100 maps, dim 16 and batch 4,096
    they would fill 1 GB a layer.
    """
    rows = max(1, PRODUCTS // (maps.shape[1] * first.shape[1]))
    # checkpoint imports a compiler the first time, 1 s, which evaluation need not pay.
    product = partial(checkpoint, _product, use_reentrant=False) if torch.is_grad_enabled() else _product
    pieces = zip(maps.split(rows), first.split(rows), strict=True)
    return torch.cat([product(*piece, layer) for piece in pieces])


def _product(maps: Tensor, first: Tensor, layer: nn.Module) -> Tensor:
    return layer((maps.unsqueeze(2) * first.unsqueeze(1)).flatten(1))
