"""FAT: a transformer over fields whose projections belong to the field and whose attention knows the field pair.

Source: "From Scaling to Structured Expressivity: Rethinking Transformers for CTR Prediction", arXiv:2511.12081 (KDD
2026). Token e_f + b_f; score w_ij <q_i, k_j> / sqrt(d_head) with q_i = z_i W_Q^(i), k_j = z_j W_K^(j); softmax over j
(section 3.2); FFN_f(z) = SiLU(z W_1^(f)) W_2^(f) (3.3); W^(f) mixed from shared bases (3.4). There is no official
code: where the sources disagree the choice is an option, its default in conf/model/fat.yaml.
Differs: field biases start at N(0, 0.5) and embeddings near 1e-4 because the first norm blows up tiny tokens: with
biases at 0 FAT stays below logistic regression on KuaiRand. A norm precedes the attention too (`block: single`),
because the quoted Z + FFN(LN(Attn(Z))) feeds raw tokens to it. `width`, `tokens: feature` and what a language model's
field vectors can start (`phi: llm_*`, `pair_init: similarity`) are additions.
"""

import math
import warnings
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from fieldctr.config import Positive, Share, Weight
from fieldctr.errors import UserError
from fieldctr.inputs import Inputs
from fieldctr.models.hooks import Diagnostics
from fieldctr.nn.embedding import FieldColumns, LinearTerm
from fieldctr.nn.fat_block import Block, BlockKind, Matrices
from fieldctr.nn.field_attention import Modulation, Pairs, check_heads
from fieldctr.nn.field_matrices import (
    ComposedMatrices,
    FreeMatrices,
    Phi,
    Projections,
    Routed,
    Routing,
    Shapes,
    field_matrices,
    meta_embeddings,
    multipliers,
    project,
)
from fieldctr.nn.readout import Head, Pooling, readout
from fieldctr.nn.width import learn_by_width
from fieldctr.schema import Schema

ATTENTION_ENTRIES = 1 << 22  # entries of alpha that `diagnostics` averages
UNMOVED = 0.01  # pair weights that have moved by less, as a root mean square, are still what they were
PairInit = Literal["normal", "ones", "similarity"]
PairTables = Literal["shared", "head", "layer", "layer_head"]  # one F x F table of w, or one for each


class FAT(nn.Module):
    """Field-aware transformer. All layers keep tokens as (T, B, D): one batched product serves all fields."""

    field_embeddings: Tensor | None  # (F, E)
    pair_start: Tensor  # what the pair weights were drawn as

    def __init__(
        self,
        schema: Schema,
        dim: int,
        field_embeddings: Tensor | None = None,
        *,
        width: Positive | None,  # of the tokens, by one linear map for each field; null: dim, without a map
        tokens: Literal["field", "feature"],  # feature: one for each value of a multi-valued field
        num_layers: Positive,
        num_heads: Positive,
        ffn_dim: Positive | None,  # null: 4 width
        block: BlockKind,
        modulation: Modulation,
        pair_init: PairInit,
        pair_tables: PairTables,
        projections: Projections,
        ffn: Literal["field", "shared"],
        num_bases: Positive | None,  # null: max(top_k + 1, half of the fields)
        top_k: Positive,
        meta_dim: Positive,
        routing: Routing,
        phi: Phi,
        anchor_weight: Weight,  # of the penalty of phi=llm_anchored
        share_layers: bool,  # one set of projections for all layers
        output_projection: bool,
        pooling: Pooling,
        head: Head,
        linear_term: bool,
        field_bias_std: Weight | None,  # null: no field bias
        dropout: Share,
    ) -> None:
        super().__init__()
        fields, inner = schema.num_fields, width or dim
        bases = num_bases or max(top_k + 1, (fields + 1) // 2)
        _check(inner, fields, num_heads=num_heads, projections=projections, tokens=tokens, num_bases=bases)
        self.modulation: Modulation = modulation
        self.reads_columns = tokens == "feature"
        self.columns = FieldColumns(schema) if self.reads_columns else None
        kinds = 1 if projections == "shared" else fields
        self.widen = FreeMatrices.drawn(kinds, {"token": (dim, inner)}) if width else None
        self.num_fields, self.field_bias = fields, None
        if field_bias_std is not None:
            self.field_bias = nn.Parameter(torch.empty(fields, inner).normal_(std=field_bias_std))
        queries = fields if projections == "pair" else 1
        own = {"q": (inner, queries * inner), "k": (inner, inner), "v": (inner, inner)}
        common: Shapes = {"out": (inner, inner)} if output_projection else {}
        hidden = ffn_dim or 4 * inner
        (own if ffn == "field" else common).update({"ffn_in": (inner, hidden), "ffn_out": (hidden, inner)})
        routed = Routed(num_bases=bases, top_k=top_k, meta_dim=meta_dim, routing=routing, phi=phi)
        vectors = _vectors(field_embeddings, fields, projections=projections, phi=phi, pair_init=pair_init)
        self.register_buffer("field_embeddings", vectors)  # saved, so that a trained model is built without an encoder
        start = None if phi == "learned" or vectors is None else meta_embeddings(vectors, meta_dim)
        sets = 1 if share_layers else num_layers
        self.own = nn.ModuleList(field_matrices(projections, fields, own, routed, start) for _ in range(sets))
        self.common = nn.ModuleList(FreeMatrices.drawn(1, common) for _ in range(sets))
        self.pair_weight = None
        if modulation != "none":
            tables = num_layers if pair_tables.startswith("layer") else 1, num_heads if "head" in pair_tables else 1
            self.pair_weight = nn.Parameter(torch.ones(*tables, fields, fields))  # (1 or L, 1 or H, F, F)
            _start(self.pair_weight, pair_init, vectors)
            self.register_buffer("pair_start", self.pair_weight.detach().clone(), persistent=False)
        self.layers = nn.ModuleList(
            Block(inner, num_heads=num_heads, kind=block, dropout=dropout) for _ in range(num_layers)
        )
        self.readout = readout(head, fields, inner, pooling=pooling)
        learn_by_width(inner, *map(multipliers, self.own), *self.common, self.readout)
        self.linear = LinearTerm(schema, bias=False) if linear_term else None
        self.anchor_weight = anchor_weight
        self.folded: nn.ModuleList | None = None

    def forward(self, emb: Tensor, inputs: Inputs) -> Tensor:
        """(B, F, dim), or (B, S, dim) with tokens=feature -> (B,)."""
        matrices, pairs = self.matrices(), self.pairs(inputs)
        z = self.tokens(emb)
        for layer, block in enumerate(self.layers):
            z = block(z, matrices[layer % len(matrices)], pairs[layer % len(pairs)])
        out = z.transpose(0, 1)  # B,T,D
        logit = self.readout(out if self.columns is None else self.columns.mean(out, inputs.ids))
        return logit if self.linear is None else logit + self.linear(inputs)

    def tokens(self, emb: Tensor) -> Tensor:
        """(B, T, dim) -> (T, B, D)."""
        z = emb.transpose(0, 1)
        if self.widen is not None:
            z = project(z, self.of_tokens(self.widen()["token"]))
        return (z if self.field_bias is None else z + self.of_tokens(self.field_bias).unsqueeze(1)).contiguous()

    def matrices(self) -> list[Matrices]:
        """The projections of each set of layers, per token; one matrix where all tokens share it."""
        if self.folded is not None:
            return [matrices() for matrices in self.folded]
        sets = []
        for own, common in zip(self.own, self.common, strict=True):
            role = {name: self.of_tokens(matrices) for name, matrices in own().items()} | common()
            qkv = torch.cat([role.pop("q"), role.pop("k"), role.pop("v")], dim=2)  # one product instead of three
            sets.append(role | {"qkv": qkv})
        return sets

    def pairs(self, inputs: Inputs) -> list[Pairs]:
        """What each set of layers knows of pairs of tokens."""
        absent = None if self.columns is None else self.columns.absent(inputs.ids)
        if self.pair_weight is None:
            return [Pairs(self.modulation, None, absent)]
        weight = self.pair_weight
        if self.columns is not None:
            of = self.columns.field_of
            weight = weight[..., of, :][..., of]  # (1 or L, 1 or H, T, T)
        return [Pairs(self.modulation, table, absent) for table in weight]

    def of_tokens(self, by_field: Tensor) -> Tensor:
        """What each field has, for each token: (F or 1, ...) -> (T or 1, ...)."""
        if self.columns is None or len(by_field) == 1:
            return by_field
        return by_field[self.columns.field_of]

    def fold(self) -> None:
        """Compose all matrices once and drop what they are made of. The model can no longer be trained."""
        self.folded = nn.ModuleList(FreeMatrices(matrices) for matrices in self.matrices())
        self.own, self.common, self.field_embeddings = nn.ModuleList(), nn.ModuleList(), None

    def place(self, new: Tensor, drawn: Mapping[str, Tensor]) -> None:
        """After a warm start: the meta-embeddings of `new` (F,) fields, as `drawn`, among the trained ones."""
        for i, own in enumerate(self.own):
            if isinstance(own, ComposedMatrices):
                own.place(new, drawn[f"own.{i}.meta"])

    def penalty(self) -> Tensor:
        """What anchored meta-embeddings pay for leaving the language model's: ()."""
        strayed = [own.strayed() for own in self.own if isinstance(own, ComposedMatrices)]
        return self.anchor_weight * torch.stack(strayed).sum() if strayed else next(self.parameters()).new_zeros(())

    @torch.no_grad()
    def diagnostics(self, emb: Tensor, inputs: Inputs) -> Diagnostics:
        """How far the pair weights have moved, mean attention, and how bases are used."""
        attention = self.mean_attention(emb, inputs)  # F,F
        most = math.log(max(len(attention), 2))  # one field has no entropy, and no share of it
        numbers = {"attention_entropy": float(torch.special.entr(attention).sum(1).mean() / most)}
        matrices, warned = {"attention": attention}, []
        if self.pair_weight is not None:
            moved = float((self.pair_weight - self.pair_start).square().mean().sqrt())
            numbers |= {"pair_weight_moved": moved, "pair_weight_mean": float(self.pair_weight.mean())}
            numbers["pair_weight_std"] = float(self.pair_weight.std(correction=0))
            if moved < UNMOVED:
                warned.append(
                    f"the field-pair weights are stuck near their start (moved by {moved:.4f}): attention has not "
                    "learned which fields belong together. Set model.pair_init=ones, or raise optimizer.lr"
                )
        composed = [own for own in self.own if isinstance(own, ComposedMatrices)]
        if composed:
            usage = torch.stack([own.routing(role) for own in composed for role in own.bases])  # sets and roles,F,M
            load = usage.sum(1)  # its rows sum to F
            numbers["bases_used"] = float((load > 0).float().mean())
            numbers["basis_load"] = float(load.amax(1).mean() / load.mean())  # 1: all bases carry the same
            matrices["bases"] = usage.mean(0)
        return Diagnostics(numbers, matrices, warned)

    def mean_attention(self, emb: Tensor, inputs: Inputs) -> Tensor:
        """alpha averaged over samples, heads and layers, by field: (F, F), rows sum to 1."""
        num_tokens = emb.shape[1]
        rows = slice(max(1, ATTENTION_ENTRIES // (num_tokens**2 * self.layers[0].num_heads)))  # ty: ignore
        inputs = Inputs(inputs.ids[rows], None if inputs.values is None else inputs.values[rows])
        matrices, pairs, z, means = self.matrices(), self.pairs(inputs), self.tokens(emb[rows]), []
        for layer, block in enumerate(self.layers):
            own, pair = matrices[layer % len(matrices)], pairs[layer % len(pairs)]
            means.append(block.attention(z, own, pair).mean(0))  # ty: ignore[not-callable]
            z = block(z, own, pair)
        mean = torch.stack(means).mean(0)  # T,T
        if self.columns is None:
            return mean
        member = functional.one_hot(self.columns.field_of, self.num_fields).to(mean)  # T,F
        return member.T @ mean @ member / member.sum(0).unsqueeze(1)

    def pair_weights(self) -> Tensor:
        """w as (F, F), row = query field; the mean over heads and layers, ones without modulation."""
        if self.pair_weight is None:
            return torch.ones(self.num_fields, self.num_fields)
        return self.pair_weight.detach().mean((0, 1))


@torch.no_grad()
def _start(pair_weight: Tensor, pair_init: PairInit, vectors: Tensor | None) -> None:
    if pair_init == "normal":
        pair_weight.normal_(std=0.01)
    elif pair_init == "similarity":
        assert vectors is not None
        unit = functional.normalize(vectors, dim=1)
        pair_weight.copy_(unit @ unit.T)


def _vectors(
    vectors: Tensor | None, num_fields: int, *, projections: Projections, phi: Phi, pair_init: PairInit
) -> Tensor | None:
    """The language model's field vectors; UserError where they are needed and missing, or cannot be used."""
    readers = [f"model.phi={phi}"] * (phi != "learned") + ["model.pair_init=similarity"] * (pair_init == "similarity")
    if readers and vectors is None:
        raise UserError(f"{readers[0]} reads field vectors, got none: use model=fat_llm, which brings an encoder")
    if phi != "learned" and projections != "hyper":
        raise UserError(f"model.phi={phi} needs model.projections=hyper, got {projections}: only routers read phi")
    if vectors is not None and len(vectors) != num_fields:
        raise UserError(f"model: {len(vectors)} field vectors for {num_fields} fields")
    return None if vectors is None else vectors.float()


def _check(
    width: int, num_fields: int, *, num_heads: int, projections: Projections, tokens: str, num_bases: int
) -> None:
    check_heads(width, num_heads)
    if projections == "pair" and tokens == "feature":
        raise UserError("model.projections=pair has a query for each field: use it with model.tokens=field")
    if projections == "hyper" and num_bases >= num_fields:
        warnings.warn(
            f"model.num_bases={num_bases} for {num_fields} fields: the hypernetwork saves nothing where there are as "
            f"many bases as fields. Set model.num_bases below {num_fields}, or model.projections=full",
            stacklevel=3,
        )
