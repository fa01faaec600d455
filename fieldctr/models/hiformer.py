"""HiFormer: a transformer whose queries and FFNs belong to the field, and whose keys and values see all fields at once.

Source: Gui et al., "Hiformer: Heterogeneous Feature Interactions Learning with Transformers for Recommender Systems",
2023: query e_i Q_i; keys of head h [k_1 .. k_T] = [e_1 .. e_T] L_h R_h of low rank, values likewise
("composite projections"); an FFN for each field; the logit from a task token, so that the last layer computes that
token alone ("pruning").
Differs: token e_f + b_f and norms before attention and FFN, as in FAT and its control, so that a difference of the
three is due to projections and attention; and because the first norm blows up tiny tokens.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fieldctr.config import Positive, Share, Weight
from fieldctr.inputs import Inputs
from fieldctr.nn.feed_forward import OwnFeedForward
from fieldctr.nn.field_attention import check_heads
from fieldctr.nn.readout import Readout
from fieldctr.schema import Schema


class HiFormer(nn.Module):
    """<w, task token> + b after L layers of Z + Attn(LN(Z)), Z + FFN_f(LN(Z)). T tokens: the fields and the task."""

    def __init__(
        self,
        schema: Schema,
        dim: int,
        *,
        num_layers: Positive,
        num_heads: Positive,
        key_rank: Positive,  # of each head's composite projection
        value_rank: Positive,
        ffn_dim: Positive | None,  # null: 4 dim
        field_bias_std: Weight,
        dropout: Share,
    ) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        tokens = schema.num_fields + 1
        self.field_bias = nn.Parameter(torch.empty(schema.num_fields, dim).normal_(std=field_bias_std))
        self.task = nn.Parameter(torch.empty(1, 1, dim).normal_(std=field_bias_std))
        self.layers = nn.Sequential(
            *(
                Layer(
                    tokens,
                    dim,
                    num_queries=1 if i == num_layers - 1 else tokens,
                    num_heads=num_heads,
                    ranks=(key_rank, value_rank),
                    ffn_dim=ffn_dim or 4 * dim,
                    dropout=dropout,
                )
                for i in range(num_layers)
            )
        )
        self.readout = Readout(1, dim, pooling="flat")

    def forward(self, emb: Tensor, inputs: Inputs) -> Tensor:
        tokens = torch.cat([emb + self.field_bias, self.task.expand(len(emb), -1, -1)], dim=1)
        return self.readout(self.layers(tokens.transpose(0, 1).contiguous()).transpose(0, 1))


class Layer(nn.Module):
    """The new vectors of the last `num_queries` of T tokens: (T, B, D) -> (num_queries, B, D)."""

    def __init__(
        self,
        num_tokens: int,
        dim: int,
        *,
        num_queries: int,
        num_heads: int,
        ranks: tuple[int, int],
        ffn_dim: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.num_queries = num_queries
        self.attention_norm, self.ffn_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query = nn.Parameter(torch.empty(num_queries, dim, dim).normal_(std=dim**-0.5))
        self.key, self.value = (Composite(num_tokens, dim, num_heads, rank) for rank in ranks)
        self.ffn = OwnFeedForward(num_queries, dim, ffn_dim)
        self.dropout = nn.Dropout(dropout)  # on what a residual adds

    def forward(self, z: Tensor) -> Tensor:
        own = z[-self.num_queries :] + self.dropout(self.attend(self.attention_norm(z)))
        return own + self.dropout(self.ffn(self.ffn_norm(own)))

    def attend(self, z: Tensor) -> Tensor:
        flat = z.transpose(0, 1).flatten(1)  # B,TD
        k, v = self.key(flat), self.value(flat)  # H,B,T,D/H each
        q = torch.bmm(z[-self.num_queries :], self.query)  # Q,B,D
        q = q.unflatten(2, (k.shape[0], -1)).permute(2, 1, 0, 3)  # H,B,Q,D/H
        return functional.scaled_dot_product_attention(q, k, v).permute(2, 1, 0, 3).flatten(2)


class Composite(nn.Module):
    """For each head, all tokens from all tokens by a map of low rank: (B, T D) -> (H, B, T, D/H)."""

    def __init__(self, num_tokens: int, dim: int, num_heads: int, rank: int) -> None:
        super().__init__()
        width = num_tokens * dim
        self.num_heads, self.num_tokens = num_heads, num_tokens
        self.left = nn.Linear(width, num_heads * rank, bias=False)
        nn.init.normal_(self.left.weight, std=width**-0.5)
        self.right = nn.Parameter(torch.empty(num_heads, rank, width // num_heads).normal_(std=rank**-0.5))

    def forward(self, flat: Tensor) -> Tensor:
        narrow = self.left(flat).unflatten(1, (self.num_heads, -1)).transpose(0, 1)  # H,B,rank
        return torch.bmm(narrow, self.right).unflatten(2, (self.num_tokens, -1))
