"""AutoInt: layers of multi-head self-attention over fields, each with a linear residual and a ReLU.

Source: Song et al., "AutoInt: Automatic Feature Interaction Learning via Self-Attentive Neural Networks", CIKM 2019,
sections 4.4 and 4.5: scores are plain inner products, not divided by a root. Without the network of AutoInt+.
"""

from torch import Tensor, nn
from torch.nn import functional

from fieldctr.config import Positive, Share
from fieldctr.nn.embedding import Inputs
from fieldctr.nn.readout import Readout
from fieldctr.schema import Schema


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
        dropout: Share,  # on the attention
    ) -> None:
        super().__init__()
        width = num_heads * head_dim
        self.layers = nn.Sequential(
            *(Layer(width if i else dim, num_heads, head_dim, dropout=dropout) for i in range(num_layers))
        )
        self.readout = Readout(schema.num_fields, width, pooling="flat")

    def forward(self, emb: Tensor, inputs: Inputs) -> Tensor:
        return self.readout(self.layers(emb))


class Layer(nn.Module):
    """ReLU(heads + W_res e) per field, the heads side by side: (B, F, in_dim) -> (B, F, num_heads * head_dim)."""

    def __init__(self, in_dim: int, num_heads: int, head_dim: int, *, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.project = nn.Linear(in_dim, 4 * num_heads * head_dim, bias=False)  # query, key, value, residual
        nn.init.normal_(self.project.weight, std=in_dim**-0.5)

    def forward(self, e: Tensor) -> Tensor:
        *qkv, residual = self.project(e).chunk(4, dim=2)  # B,F,HA each
        q, k, v = (part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in qkv)  # B,H,F,A
        dropout = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=1.0)
        return (mixed.transpose(1, 2).flatten(2) + residual).relu()
