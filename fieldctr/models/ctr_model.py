"""The model that is trained: feature embeddings, a backbone, and at most one enhancer.

A backbone is a class with this signature; none inherits from another:
    __init__(self, schema: Schema, dim: int, *, ...)        what its YAML sets, keyword-only
    forward(self, emb: Tensor, inputs: Inputs) -> Tensor    (B, F, D) -> logit (B,)
One that reads no feature embeddings says `reads_embeddings = False` and gets (B, F, 0); one with `reads_columns = True`
gets a vector for each id column, (B, S, D), where a multi-valued field has several.

An enhancer likewise:
    __init__(self, schema: Schema, dim: int, *, ...)
    forward(self, emb: Tensor) -> tuple[Tensor, Tensor]     (B, F, D) -> extra logit (B,), penalty ()
Either may have a method `fold()`, which turns it in place into what evaluation and serving need and no more.

One whose constructor asks for `field_embeddings` behind `dim` gets a language model's vectors of the fields, (F, E).
"""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fieldctr.config import Weight, build, checked, locate
from fieldctr.errors import UserError
from fieldctr.nn.embedding import FeatureEmbedding, Inputs, NoEmbedding, Table
from fieldctr.nn.flops import FlopCounter
from fieldctr.schema import Schema

SOURCE = ("source", "epoch")  # keys of an enhancer's node that say where its field embeddings come from


class Output(NamedTuple):
    """What a forward pass gives."""

    logit: Tensor  # (B,)
    penalty: Tensor  # (), added to the training loss


class CTRModel(nn.Module):
    """Embed, predict, and let the enhancer add to the logit and to the loss."""

    def __init__(
        self, embedding: FeatureEmbedding | NoEmbedding, backbone: nn.Module, enhancer: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.backbone = backbone
        self.enhancer = enhancer

    def forward(self, inputs: Inputs) -> Output:
        columns = self.embedding.columns(inputs)  # B,S,D
        emb = self.embedding.pooled(columns, inputs)  # B,F,D
        logit = self.backbone(columns if getattr(self.backbone, "reads_columns", False) else emb, inputs)
        if self.enhancer is None:
            return Output(logit, logit.new_zeros(()))
        extra, penalty = self.enhancer(emb)
        return Output(logit + extra, penalty)

    def fold(self) -> Self:
        """Into the form that serves, in place: what depends on no sample is computed once, its makings are dropped."""
        with torch.no_grad():
            for part in (self.backbone, self.enhancer):
                if hasattr(part, "fold"):
                    part.fold()  # ty: ignore[not-callable]
        return self.eval()

    def num_parameters(self) -> dict[str, int]:
        """Counts: `embedding` (all tables, first-order weights too), `dense` (the rest), `total`."""
        total = sum(parameter.numel() for parameter in self.parameters())
        embedding = sum(module.weight.numel() for module in self.modules() if isinstance(module, Table))
        return {"embedding": embedding, "dense": total - embedding, "total": total}


def build_model(
    schema: Schema,
    *,
    dim: int,
    model: Mapping[str, Any],
    enhancer: Mapping[str, Any] | None,
    seed: int,
    field_embeddings: Tensor | None = None,
) -> CTRModel:
    """The model of two YAML nodes on the CPU. Equal seeds give equal weights, whatever was drawn before.

    The node `model` is the backbone's `_target_` and keywords, and `embedding_std`: the initial scale of the feature
    embeddings. Embeddings and backbone are drawn before the enhancer, so that runs with and without one are paired. The
    node of an enhancer that reads field embeddings has the keys of SOURCE besides: they say where those come from.
    """
    keywords = dict(model)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if getattr(locate(model, "model"), "reads_embeddings", True):
            embedding = FeatureEmbedding(schema, dim, init_std=_embedding_std(keywords))
        else:
            embedding = NoEmbedding(schema)
        backbone = build(keywords, "model", schema, dim)
        if not enhancer:
            return CTRModel(embedding, backbone)
        if not reads_field_embeddings(enhancer):
            return CTRModel(embedding, backbone, build(enhancer, "enhancer", schema, dim))
        assert field_embeddings is not None, "the enhancer reads field embeddings: give them"
        own = {key: value for key, value in enhancer.items() if key not in SOURCE}
        return CTRModel(embedding, backbone, build(own, "enhancer", schema, dim, field_embeddings))


def flops_per_sample(model: CTRModel, schema: Schema) -> int:
    """What one more sample costs a forward pass, in operations of matrix products: two for each multiply-add.

    What is computed once a batch, whatever its size, does not count. Shapes decide: fake tensors give the same number.
    """
    device, training = next(model.parameters()).device, model.training

    def flops(rows: int) -> int:
        ids = torch.ones(rows, schema.num_columns, dtype=torch.int32, device=device)
        values = torch.ones(rows, schema.num_numeric, device=device) if schema.num_numeric else None
        # Without gradients a model may remember products; the fused attention of a CPU would count as nothing.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounter() as counter:
            model(Inputs(ids, values))
        return counter.flops

    model.eval()
    found = flops(2) - flops(1)
    model.train(training)
    return found


def reads_field_embeddings(enhancer: Mapping[str, Any] | None) -> bool:
    """Whether the constructor that the node names asks for them."""
    return bool(enhancer) and "field_embeddings" in inspect.signature(locate(enhancer, "enhancer")).parameters


def _embedding_std(keywords: dict[str, Any]) -> float:
    """Take the key out of the backbone's keywords."""
    if "embedding_std" not in keywords:
        raise UserError("key 'model.embedding_std' is missing: expected float >= 0, such as 1e-4")
    return checked(keywords.pop("embedding_std"), Weight, "model.embedding_std")
