"""A plain transformer over fields: FAT's control, equal in all but field awareness.

Source: Vaswani et al., "Attention Is All You Need", NeurIPS 2017, with the norm before attention and FFN.
Differs: token e_f + b_f, SiLU, no biases and no output projection, as in FAT, so that a difference of the two is due
to field-specific projections and pair weights.
"""

import torch
from torch import Tensor, nn

from fieldctr.config import Positive, Share, Weight
from fieldctr.inputs import Inputs
from fieldctr.nn.field_attention import Pairs, check_heads, field_attention
from fieldctr.nn.readout import Pooling, Readout
from fieldctr.nn.width import learn_by_width
from fieldctr.schema import Schema

PLAIN = Pairs("none", None, None)


class Transformer(nn.Module):
    """L layers of Z + Attn(LN(Z)), Z + FFN(LN(Z)); every field by the same matrices."""

    def __init__(
        self,
        schema: Schema,
        dim: int,
        *,
        num_layers: Positive,
        num_heads: Positive,
        ffn_dim: Positive | None,  # null: 4 dim
        pooling: Pooling,
        field_bias_std: Weight,
        dropout: Share,
    ) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.field_bias = nn.Parameter(torch.empty(schema.num_fields, dim).normal_(std=field_bias_std))
        self.layers = nn.ModuleList(
            Layer(dim, num_heads=num_heads, ffn_dim=ffn_dim or 4 * dim, dropout=dropout) for _ in range(num_layers)
        )
        self.readout = Readout(schema.num_fields, dim, pooling=pooling)
        learn_by_width(dim, self.readout)

    def forward(self, emb: Tensor, inputs: Inputs) -> Tensor:
        tokens = emb + self.field_bias  # B,F,D
        for layer in self.layers:
            tokens = layer(tokens)
        return self.readout(tokens)


class Layer(nn.Module):
    """One pre-norm layer, (B, F, D) -> (B, F, D)."""

    def __init__(self, dim: int, *, num_heads: int, ffn_dim: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm, self.ffn_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv = _linear(dim, 3 * dim)
        self.ffn = nn.Sequential(_linear(dim, ffn_dim), nn.SiLU(), _linear(ffn_dim, dim))
        learn_by_width(dim, self.qkv, self.ffn)
        self.dropout = nn.Dropout(dropout)

    def forward(self, z: Tensor) -> Tensor:
        z = z + self.dropout(self.attend(self.attention_norm(z)))
        return z + self.dropout(self.ffn(self.ffn_norm(z)))

    def attend(self, z: Tensor) -> Tensor:
        # With heads as narrow as a field's, scaled_dot_product_attention takes four times as long on a CPU.
        return field_attention(self.qkv(z).transpose(0, 1), PLAIN, self.num_heads).transpose(0, 1)


def _linear(in_dim: int, out_dim: int) -> nn.Linear:
    layer = nn.Linear(in_dim, out_dim, bias=False)
    nn.init.normal_(layer.weight, std=in_dim**-0.5)  # the scale of FAT's matrices
    return layer
