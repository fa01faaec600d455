"""AutoInt: layers of multi-head self-attention over fields, each with a linear residual and a ReLU.

Source: Song et al., "AutoInt: Automatic Feature Interaction Learning via Self-Attentive Neural Networks", CIKM 2019,
sections 4.4 and 4.5: scores are plain inner products, not divided by a root. Without the network of AutoInt+.
Differs: dropout on what the heads return instead of on their attention.
"""

from torch import Tensor, nn

from fieldctr.config import Positive, Share
from fieldctr.inputs import Inputs
from fieldctr.nn.field_attention import Pairs, field_attention
from fieldctr.nn.readout import Readout
from fieldctr.schema import Schema

PLAIN = Pairs("none", None, None, scale=1.0)


class AutoInt(nn.Module):
    """<w, all fields' vectors> + b after `num_layers` layers that widen them to num_heads * head_dim."""

    def __init__(
        self,
        schema: Schema,
        dim: int,
        *,
        num_layers: Positive,
        num_heads: Positive,
        head_dim: Positive,
        dropout: Share,
    ) -> None:
        super().__init__()
        width = num_heads * head_dim
        self.layers = nn.Sequential(
            *(Layer(width if i else dim, num_heads, head_dim, dropout=dropout) for i in range(num_layers))
        )
        self.readout = Readout(schema.num_fields, width, pooling="flat")

    def forward(self, emb: Tensor, inputs: Inputs) -> Tensor:
        return self.readout(self.layers(emb))

    def representation(self, emb: Tensor, inputs: Inputs) -> Tensor:
        """(B, F, D) -> (B, F num_heads head_dim)."""
        return self.layers(emb).flatten(1)


class Layer(nn.Module):
    """ReLU(heads + W_res e) per field, the heads side by side: (B, F, in_dim) -> (B, F, num_heads * head_dim)."""

    def __init__(self, in_dim: int, num_heads: int, head_dim: int, *, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.project = nn.Linear(in_dim, 4 * num_heads * head_dim, bias=False)  # query, key, value, residual
        nn.init.normal_(self.project.weight, std=in_dim**-0.5)
        self.dropout = nn.Dropout(dropout)

    def forward(self, e: Tensor) -> Tensor:
        width = self.project.out_features // 4
        qkv, residual = self.project(e).split([3 * width, width], dim=2)  # B,F,3HA and B,F,HA
        mixed = field_attention(qkv.transpose(0, 1), PLAIN, self.num_heads).transpose(0, 1)
        return (self.dropout(mixed) + residual).relu()
