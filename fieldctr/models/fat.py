"""FAT: a transformer over fields whose projections belong to the field and whose attention knows the field pair.

Source: "From Scaling to Structured Expressivity: Rethinking Transformers for CTR Prediction", arXiv:2511.12081 (KDD
2026). Token e_f + b_f; score w_ij <q_i, k_j> / sqrt(d_head) with q_i = z_i W_Q^(i), k_j = z_j W_K^(j); softmax over j
(section 3.2); FFN_f(z) = SiLU(z W_1^(f)) W_2^(f) (3.3); W^(f) mixed from shared bases (3.4). There is no official
code: where the sources disagree the choice is an option, its default in conf/model/fat.yaml.
Differs: field biases start at N(0, 0.5) and embeddings near 1e-4 because the first norm blows up tiny tokens: with
biases at 0 FAT stays below logistic regression on KuaiRand. A norm precedes the attention too (`block: single`),
because the quoted Z + FFN(LN(Attn(Z))) feeds raw tokens to it.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from fieldctr.config import Positive, Share, Weight
from fieldctr.errors import UserError
from fieldctr.nn.embedding import Inputs, LinearTerm
from fieldctr.nn.field_matrices import FreeMatrices, Projections, Routed, Routing, Shapes, field_matrices, project
from fieldctr.nn.readout import Pooling, Readout
from fieldctr.schema import Schema

BlockKind = Literal["single", "two_residual_pre", "post"]
Modulation = Literal["pre", "post", "none"]
Matrices = dict[str, Tensor]  # role -> (F or 1, d_in, d_out)


class FAT(nn.Module):
    """Field-aware transformer. All layers keep tokens as (F, B, D): one batched product serves all fields."""

    def __init__(
        self,
        schema: Schema,
        dim: int,
        *,
        num_layers: Positive,
        num_heads: Positive,
        ffn_dim: Positive | None,  # null: 4 dim
        block: BlockKind,
        modulation: Modulation,  # w on the scores before the softmax, or on the attention after it
        pair_init: Literal["normal", "ones"],
        projections: Projections,
        ffn: Literal["field", "shared"],
        num_bases: Positive | None,  # null: max(top_k + 1, half of the fields)
        top_k: Positive,
        meta_dim: Positive,
        routing: Routing,
        share_layers: bool,  # one set of projections and pair weights for all layers
        output_projection: bool,
        pooling: Pooling,
        linear_term: bool,
        field_bias_std: Weight,
        dropout: Share,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise UserError(f"model.num_heads={num_heads} does not divide embedding_dim={dim}")
        fields, sets = schema.num_fields, 1 if share_layers else num_layers
        self.field_bias = nn.Parameter(torch.empty(fields, dim).normal_(std=field_bias_std))
        own, common = _shapes(dim, ffn_dim or 4 * dim, field_ffn=ffn == "field", output_projection=output_projection)
        bases = num_bases or max(top_k + 1, (fields + 1) // 2)
        routed = Routed(num_bases=bases, top_k=top_k, meta_dim=meta_dim, routing=routing)
        self.own = nn.ModuleList(field_matrices(projections, fields, own, routed) for _ in range(sets))
        self.common = nn.ModuleList(FreeMatrices(1, common) for _ in range(sets))
        self.pair_weight = None if modulation == "none" else nn.Parameter(torch.ones(sets, fields, fields))
        if self.pair_weight is not None and pair_init == "normal":
            nn.init.normal_(self.pair_weight, std=0.01)
        self.blocks = nn.ModuleList(
            Block(dim, num_heads=num_heads, kind=block, modulation=modulation, dropout=dropout)
            for _ in range(num_layers)
        )
        self.readout = Readout(fields, dim, pooling=pooling)
        self.linear = LinearTerm(schema, bias=False) if linear_term else None
        self._composed: tuple[object, list[Matrices]] | None = None

    def forward(self, emb: Tensor, inputs: Inputs) -> Tensor:
        matrices, weights = self.matrices(), self._layer_weights()
        tokens = (emb + self.field_bias).transpose(0, 1).contiguous()  # F,B,D
        for layer, block in enumerate(self.blocks):
            tokens = block(tokens, matrices[layer % len(matrices)], weights[layer % len(weights)])
        logit = self.readout(tokens.transpose(0, 1))
        return logit if self.linear is None else logit + self.linear(inputs)

    def matrices(self) -> list[Matrices]:
        """Every layer set's projections; in evaluation composed once, until a parameter changes."""
        if self.training or torch.is_grad_enabled() or torch.compiler.is_compiling():
            self._composed = None
            return self._compose()
        # Versions notice load_state_dict, an optimizer's step and swapped averages; addresses notice a move.
        state = [(p.data_ptr(), p._version) for p in self.parameters()]
        if self._composed is None or self._composed[0] != state:
            self._composed = state, self._compose()
        return self._composed[1]

    def pair_weights(self) -> Tensor:
        """w as (F, F), row = query field; the mean over layers where each has its own, ones without modulation."""
        if self.pair_weight is None:
            return torch.ones(len(self.field_bias), len(self.field_bias))
        return self.pair_weight.detach().mean(0)

    def _compose(self) -> list[Matrices]:
        sets = []
        for own, common in zip(self.own, self.common, strict=True):
            role = own() | common()
            qkv = torch.cat([role.pop("q"), role.pop("k"), role.pop("v")], dim=2)  # one product instead of three
            sets.append(role | {"qkv": qkv})
        return sets

    def _layer_weights(self) -> list[Tensor | None]:
        return [None] if self.pair_weight is None else list(self.pair_weight)


class Block(nn.Module):
    """Attention and FFN with their norms; the matrices come from outside, as layers may share them."""

    def __init__(self, dim: int, *, num_heads: int, kind: BlockKind, modulation: Modulation, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.kind, self.modulation = num_heads, kind, modulation
        self.attention_norm = nn.LayerNorm(dim)
        self.ffn_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)  # on what a residual adds

    def forward(self, z: Tensor, matrices: Matrices, weight: Tensor | None) -> Tensor:
        """(F, B, D) -> (F, B, D)."""
        if self.kind == "single":
            mixed = self.attend(self.attention_norm(z), matrices, weight)
            return z + self.dropout(feed_forward(self.ffn_norm(mixed), matrices))
        if self.kind == "two_residual_pre":
            z = z + self.dropout(self.attend(self.attention_norm(z), matrices, weight))
            return z + self.dropout(feed_forward(self.ffn_norm(z), matrices))
        z = self.attention_norm(z + self.dropout(self.attend(z, matrices, weight)))
        return self.ffn_norm(z + self.dropout(feed_forward(z, matrices)))

    def attend(self, z: Tensor, matrices: Matrices, weight: Tensor | None) -> Tensor:
        num_fields, batch, dim = z.shape
        split = num_fields, batch, 3, self.num_heads, dim // self.num_heads
        qkv = project(z, matrices["qkv"]).view(split).permute(2, 1, 3, 0, 4)  # 3,B,H,F,D/H
        # The copy pays: products on strided views are slower than copy and product.
        q, k, v = qkv.reshape(3, batch * self.num_heads, num_fields, dim // self.num_heads).unbind()
        mixed = modulated_attention(q, k, v, weight, self.modulation)  # BH,F,D/H
        mixed = mixed.transpose(0, 1).reshape(num_fields, batch, dim)
        return project(mixed, matrices["out"]) if "out" in matrices else mixed


def modulated_attention(q: Tensor, k: Tensor, v: Tensor, weight: Tensor | None, modulation: Modulation) -> Tensor:
    """Attention over fields with a weight per ordered field pair: three (N, F, D), (F, F) -> (N, F, D)."""
    scale = q.shape[-1] ** -0.5
    dots = q @ k.transpose(1, 2)  # N,F,F
    if weight is None:
        return (dots * scale).softmax(-1) @ v
    if modulation == "pre":
        return (dots * (weight * scale)).softmax(-1) @ v
    return ((dots * scale).softmax(-1) * weight) @ v


def feed_forward(z: Tensor, matrices: Matrices) -> Tensor:
    """SiLU(z W1) W2 with the field's own matrices: (F, B, D) -> (F, B, D)."""
    return project(functional.silu(project(z, matrices["ffn_in"])), matrices["ffn_out"])


def _shapes(dim: int, ffn_dim: int, *, field_ffn: bool, output_projection: bool) -> tuple[Shapes, Shapes]:
    """The roles of which each field has its own matrix, and those that all fields share."""
    attention = dict.fromkeys(("q", "k", "v"), (dim, dim))
    feed = {"ffn_in": (dim, ffn_dim), "ffn_out": (ffn_dim, dim)}
    out = {"out": (dim, dim)} if output_projection else {}
    return (attention | feed, out) if field_ffn else (attention, feed | out)
