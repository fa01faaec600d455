"""The model that is trained: feature embeddings, a backbone, and at most one enhancer.

A backbone is a class with this signature; none inherits from another:
    __init__(self, schema: Schema, dim: int, *, ...)        what its YAML sets, keyword-only
    forward(self, emb: Tensor, inputs: Inputs) -> Tensor    (B, F, D) -> logit (B,)

An enhancer likewise:
    __init__(self, schema: Schema, dim: int, *, ...)
    forward(self, emb: Tensor) -> tuple[Tensor, Tensor]     (B, F, D) -> extra logit (B,), penalty ()
                                                            with reads_inputs = True forward(self, emb, inputs)
What either may offer besides stands in models/hooks.py. An enhancer that pretrains is settings alone: its keys.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fieldctr.config import Weight, build, checked
from fieldctr.errors import UserError
from fieldctr.inputs import Inputs
from fieldctr.models.hooks import (
    FIELD_EMBEDDINGS,
    READ,
    TEXT_VECTORS,
    VALUE_VECTORS,
    Backbone,
    Enhancer,
    check_hooks,
    hook,
)
from fieldctr.nn.embedding import EmbeddingTable, FeatureEmbedding, NoEmbedding
from fieldctr.nn.flops import FlopCounter
from fieldctr.nn.id_dropout import IdDropout
from fieldctr.nn.text_lookup import TextVectors
from fieldctr.nn.value_lookup import ValueVectors
from fieldctr.schema import Schema
from fieldctr.targets import Kind, locate


def _is_part(target: Any, *inputs: str) -> bool:
    """Whether it is a module that is built of schema and dim, and whose forward takes these."""
    if not (inspect.isclass(target) and issubclass(target, nn.Module)):
        return False
    try:
        inspect.signature(target).bind_partial("schema", "dim")
        inspect.signature(target.forward).bind("self", *inputs)
    except TypeError:
        return False
    behind = [p for p in inspect.signature(target).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD][2:]
    return all(p.name in READ or p.default is not p.empty for p in behind)


KINDS = {
    "model": Kind(
        "a backbone: a class with __init__(schema, dim, *, ...) and forward(emb, inputs)",
        "fieldctr.models.fm.FM",
        lambda target: _is_part(target, "emb", "inputs"),
    ),
    "enhancer": Kind(
        "an enhancer: a class with __init__(schema, dim, *, ...) and forward(emb)",
        "fieldctr.enhancers.llactr.LLaCTR",
        lambda target: (
            hook(target, "pretrains", False)
            or _is_part(target, "emb", *(["inputs"] if hook(target, "reads_inputs", False) else []))
        ),
    ),
}
# Keys of a node that say where the vectors come from that it reads.
SOURCE = ("source", "epoch", "min_rows", "most_values", "value_text")


class Output(NamedTuple):
    """What a forward pass gives."""

    logit: Tensor  # (B,)
    penalty: Tensor  # (), added to the training loss


class CTRModel(nn.Module):
    """Embed, predict, and let the enhancer add to the logit and to the loss."""

    def __init__(
        self,
        embedding: FeatureEmbedding | NoEmbedding,
        backbone: nn.Module,
        enhancer: nn.Module | None = None,
        *,
        schema: Schema | None = None,
        id_dropout: IdDropout | None = None,
    ) -> None:
        super().__init__()
        self.id_dropout = id_dropout
        self.schema = schema  # for messages that name a field
        self.embedding = embedding
        self.backbone = backbone
        self.enhancer = enhancer

    def with_texts(self, inputs: Inputs) -> Inputs:
        """The samples as embedding and backbone read them: with the fields that the enhancer adds, if it adds any."""
        adds = hook(self.enhancer, "with_texts")
        return adds(inputs) if adds else inputs

    def forward(self, inputs: Inputs) -> Output:
        inputs, columns, emb = self._embedded(inputs)
        logit = self.backbone(columns if hook(self.backbone, "reads_columns") else emb, inputs)
        penalty = hook(self.backbone, "penalty") if self.training else None
        own = penalty() if penalty else logit.new_zeros(())
        if self.enhancer is None:
            return Output(logit, own)
        extra, added = self.enhancer(emb, inputs) if hook(self.enhancer, "reads_inputs") else self.enhancer(emb)
        return Output(logit + extra, own + added)

    def representation(self, inputs: Inputs) -> Tensor:
        """What the backbone's last layer reads of each sample, where it has that hook: (B, S) ids -> (B, W)."""
        inputs, columns, emb = self._embedded(inputs)
        read = columns if hook(self.backbone, "reads_columns") else emb
        return hook(self.backbone, "representation")(read, inputs)

    def _embedded(self, inputs: Inputs) -> tuple[Inputs, Tensor, Tensor]:
        """The samples as they are read, a vector for each column (B, S, D), and for each field (B, F, D)."""
        inputs = self.with_texts(inputs)
        if self.id_dropout is not None:
            inputs = self.id_dropout(inputs)
        columns = self.embedding.columns(inputs)
        return inputs, columns, self.embedding.pooled(columns, inputs)

    def fold(self) -> Self:
        """Into the form that serves, in place: what depends on no sample is computed once, its makings are dropped."""
        with torch.no_grad():
            for part in (self.backbone, self.enhancer):
                if fold := hook(part, "fold"):
                    fold()
        return self.eval()

    def num_parameters(self) -> dict[str, int]:
        """Counts: `embedding` (all tables, first-order weights too), `dense` (the rest), `total`."""
        total = sum(parameter.numel() for parameter in self.parameters())
        embedding = sum(module.weight.numel() for module in self.modules() if isinstance(module, EmbeddingTable))
        return {"embedding": embedding, "dense": total - embedding, "total": total}


def build_model(
    schema: Schema,
    *,
    dim: int,
    model: Mapping[str, Any],
    enhancer: Mapping[str, Any] | None,
    seed: int,
    field_embeddings: Mapping[str, Tensor] | None = None,
    text_vectors: Sequence[TextVectors] = (),
    value_vectors: ValueVectors | None = None,
    id_dropout: Mapping[str, float] | None = None,
) -> CTRModel:
    """The model of two YAML nodes on the CPU. Equal seeds give equal weights, whatever was drawn before.

    The node `model` is the backbone's `_target_` and keywords, and `embedding_std`: the initial scale of the feature
    embeddings. Embeddings and backbone are drawn before the enhancer, so that runs with and without one are paired.
    An enhancer that gives the backbone more fields is drawn before it, from random numbers of its own; one that
    pretrains is no part of the model.
    `field_embeddings` has those of "model" and "enhancer", as far as they read any, `text_vectors` what an enhancer
    reads of users and items, `value_vectors` what it reads of values; `id_dropout` a probability for each field that
    may be taken for missing in training.
    """
    refuse_misfits(model, enhancer)
    if enhancer and pretrains(enhancer):
        build(enhancer, "enhancer", kind=KINDS["enhancer"])  # which refuses wrong keys
        enhancer = None
    keywords = dict(model)
    vectors = field_embeddings or {}
    read = {TEXT_VECTORS: text_vectors, VALUE_VECTORS: value_vectors}
    with torch.random.fork_rng(devices=[]):
        added = None
        if enhancer and adds_fields(enhancer):
            torch.default_generator.manual_seed(seed + 2**32)
            added = _built(enhancer, "enhancer", schema, dim, vectors, read=read)
            schema = added.schema_with_texts(schema)  # ty: ignore
        torch.default_generator.manual_seed(seed)
        if _reads_embeddings(model):
            embedding = FeatureEmbedding(schema, dim, init_std=_embedding_std(keywords))
        else:
            embedding = NoEmbedding(schema)
        backbone = _built(keywords, "model", schema, dim, vectors)
        if enhancer and added is None:
            added = _built(enhancer, "enhancer", schema, dim, vectors, read=read)
        check_hooks(backbone, Backbone)
        if added is not None:
            check_hooks(added, Enhancer)
        dropout = IdDropout(schema, id_dropout) if id_dropout else None
        return CTRModel(embedding, backbone, added, schema=schema, id_dropout=dropout)


def refuse_misfits(
    model: Mapping[str, Any], enhancer: Mapping[str, Any] | None, *, named: str = "model and enhancer"
) -> None:
    """UserError for the nodes of a backbone and an enhancer that cannot work together; `named` says what was chosen."""
    if not enhancer:
        return
    names = [node["_target_"].rpartition(".")[2] for node in (model, enhancer)]
    if pretrains(enhancer) and hook(locate(model, "model", KINDS["model"]), "representation") is None:
        why = f"{names[1]} aligns what a model's last layer reads, and {names[0]} has no representation()"
    elif pretrains(enhancer):
        return
    elif not adds_fields(enhancer) and not _reads_embeddings(model):
        why = f"{names[1]} works on feature embeddings, and {names[0]} has none"
    elif adds_fields(enhancer) and reads_field_embeddings(model, "model"):
        why = f"{names[0]} reads a vector for each field's name, and the fields that {names[1]} adds have none"
    else:
        return
    raise UserError(f"{named} do not fit together: {why}. Take enhancer=none, or another model")


def _reads_embeddings(model: Mapping[str, Any]) -> bool:
    return hook(locate(model, "model", KINDS["model"]), "reads_embeddings", True)


def adds_fields(enhancer: Mapping[str, Any] | None) -> bool:
    """Whether the node's enhancer gives the backbone more fields."""
    return bool(enhancer) and hook(locate(enhancer, "enhancer", KINDS["enhancer"]), "with_texts") is not None


def pretrains(enhancer: Mapping[str, Any] | None) -> bool:
    """Whether the node's enhancer is a stage before the training, and no part of the model."""
    return bool(enhancer) and hook(locate(enhancer, "enhancer", KINDS["enhancer"]), "pretrains", False)


def flops_per_sample(model: CTRModel, schema: Schema) -> int:
    """What one more sample costs a forward pass, in operations of matrix products: two for each multiply-add.

    What is computed once a batch, whatever its size, does not count. Shapes decide, not ids: 0 is one that every field
    has, also one that knows no value; and fake tensors give the same number.
    """
    device, training = next(model.parameters()).device, model.training

    def flops(rows: int) -> int:
        ids = torch.zeros(rows, schema.num_columns, dtype=torch.int32, device=device)
        values = torch.ones(rows, schema.num_values, device=device) if schema.num_values else None
        # Without gradients a model may remember products; the fused attention of a CPU would count as nothing.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounter() as counter:
            model(Inputs(ids, values))
        return counter.flops

    model.eval()
    found = flops(2) - flops(1)
    model.train(training)
    return found


def reads_field_embeddings(node: Mapping[str, Any] | None, name: str) -> bool:
    """Whether what the node called `name` builds wants them."""
    if not node:
        return False
    parameter = inspect.signature(locate(node, name, KINDS[name])).parameters.get(FIELD_EMBEDDINGS)
    return parameter is not None and (parameter.default is parameter.empty or "source" in node)


def reads_text_vectors(node: Mapping[str, Any] | None) -> bool:
    """Whether the node's enhancer wants those of users and items."""
    return _asks(node, TEXT_VECTORS)


def reads_value_vectors(node: Mapping[str, Any] | None) -> bool:
    """Whether the node's enhancer wants those of the fields' frequent values."""
    return _asks(node, VALUE_VECTORS)


def _asks(enhancer: Mapping[str, Any] | None, name: str) -> bool:
    if not enhancer:
        return False
    return name in inspect.signature(locate(enhancer, "enhancer", KINDS["enhancer"])).parameters


def _built(
    node: Mapping[str, Any],
    name: str,
    schema: Schema,
    dim: int,
    vectors: Mapping[str, Tensor],
    *,
    read: Mapping[str, Any] | None = None,
) -> nn.Module:
    for key, value in (read or {}).items():
        if _asks(node, key):
            own = {key: value for key, value in node.items() if key not in SOURCE}
            return build(own, name, schema, dim, value, kind=KINDS[name])
    if not reads_field_embeddings(node, name):
        return build(node, name, schema, dim, kind=KINDS[name])
    if name not in vectors:
        raise UserError(
            f"{name} {node['_target_']} reads field embeddings and got none. Of a finished run they are the buffer "
            f"{FIELD_EMBEDDINGS} that the module itself must keep"
        )
    own = {key: value for key, value in node.items() if key not in SOURCE}
    return build(own, name, schema, dim, vectors[name], kind=KINDS[name])


def _embedding_std(keywords: dict[str, Any]) -> float:
    """Take the key out of the backbone's keywords."""
    if "embedding_std" not in keywords:
        raise UserError("key 'model.embedding_std' is missing: expected float >= 0, such as 1e-4")
    return checked(keywords.pop("embedding_std"), Weight, "model.embedding_std")
