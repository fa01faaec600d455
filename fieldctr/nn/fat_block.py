"""One layer of FAT: attention over fields and a feed-forward network; each field's matrices come from outside.

Source: FAT (arXiv:2511.12081) version 2: attention in section 3.2, FFN_f(z) = SiLU(z W_1^(f)) W_2^(f) in 3.3. Its
sources disagree about norms and residuals; each layout is a BlockKind.
"""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from fieldctr.nn.field_attention import Pairs, attention, by_head, field_attention, pair_attention, pair_dots
from fieldctr.nn.field_matrices import project

BlockKind = Literal["single", "quoted", "single_post", "two_residual_pre", "post"]
Matrices = dict[str, Tensor]  # role -> (T or 1, d_in, d_out); "qkv" holds three roles side by side


class Block(nn.Module):
    """Attention and FFN with their norms.

    single            z + FFN(LN(Attn(LN(z))))
    quoted            z + FFN(LN(Attn(z))), as version 2 is quoted
    single_post       LN(z + FFN(Attn(z))), version 1
    two_residual_pre  z + Attn(LN(z)), then z + FFN(LN(z))
    post              LN(z + Attn(z)), then LN(z + FFN(z))
    """

    def __init__(self, dim: int, *, num_heads: int, kind: BlockKind, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.kind = num_heads, kind
        self.attention_norm = nn.Identity() if kind in ("quoted", "single_post") else nn.LayerNorm(dim)
        self.ffn_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)  # on what a residual adds

    def forward(self, z: Tensor, matrices: Matrices, pairs: Pairs) -> Tensor:
        """(T, B, D) -> (T, B, D)."""
        if self.kind == "two_residual_pre":
            z = z + self.dropout(self.attend(self.attention_norm(z), matrices, pairs))
            return z + self.dropout(feed_forward(self.ffn_norm(z), matrices))
        if self.kind == "post":
            z = self.attention_norm(z + self.dropout(self.attend(z, matrices, pairs)))
            return self.ffn_norm(z + self.dropout(feed_forward(z, matrices)))
        if self.kind == "single_post":
            return self.ffn_norm(z + self.dropout(feed_forward(self.attend(z, matrices, pairs), matrices)))
        mixed = self.attend(self.attention_norm(z), matrices, pairs)
        return z + self.dropout(feed_forward(self.ffn_norm(mixed), matrices))

    def attention(self, z: Tensor, matrices: Matrices, pairs: Pairs) -> Tensor:
        """alpha to look at, of what the layer is given: (T, B, D) -> (BH, T, T)."""
        qkv = project(z if self.kind == "post" else self.attention_norm(z), matrices["qkv"])
        if qkv.shape[2] > 3 * z.shape[2]:
            dots, v = pair_dots(qkv, self.num_heads)
            return attention(dots, v.shape[-1], pairs)
        q, k, _ = by_head(qkv, 3, self.num_heads)
        return attention(q @ k.transpose(1, 2), q.shape[-1], pairs)

    def attend(self, z: Tensor, matrices: Matrices, pairs: Pairs) -> Tensor:
        qkv = project(z, matrices["qkv"])
        attended = field_attention if qkv.shape[2] == 3 * z.shape[2] else pair_attention
        mixed = attended(qkv, pairs, self.num_heads)  # T,B,D
        return project(mixed, matrices["out"]) if "out" in matrices else mixed


def feed_forward(z: Tensor, matrices: Matrices) -> Tensor:
    """SiLU(z W1) W2: (T, B, D) -> (T, B, D)."""
    return project(functional.silu(project(z, matrices["ffn_in"])), matrices["ffn_out"])
