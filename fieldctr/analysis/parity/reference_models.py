"""The simplest models once more, in numpy and float64, from their papers: what the fast ones must agree with.

Each takes a model's weights by name, and the field embeddings that `embed` makes of them. Sources: the models' modules.
"""

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np

from fieldctr.schema import Schema

Weights = Mapping[str, np.ndarray]


class Batch(NamedTuple):
    """Samples as arrays."""

    ids: np.ndarray  # (B, S)
    values: np.ndarray  # (B, N), 0 columns without numeric fields
    label: np.ndarray  # (B,)


def loss(model: str, weights: Weights, schema: Schema, batch: Batch) -> float:
    """Mean binary cross-entropy, in nats."""
    ids, values, label = batch
    if "embedding.table.weight" in weights:
        emb = embed(weights["embedding.table.weight"], schema, ids, values)
    else:
        emb = np.empty((len(ids), schema.num_fields, 0))
    first = np.zeros(len(ids))
    if "backbone.linear.weight.table.weight" in weights:
        first = embed(weights["backbone.linear.weight.table.weight"], schema.unshared(), ids, values).sum((1, 2))
    bias = weights.get("backbone.linear.bias", np.zeros(()))
    logit = first + bias + MODELS[model](weights, emb)
    return float(np.mean(np.logaddexp(0, logit) - label * logit))


def embed(table: np.ndarray, schema: Schema, ids: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Table (V, D) -> (B, F, D): a row, the mean of a field's known rows, or row 1 times the value; else row 0."""
    emb = np.zeros((len(ids), schema.num_fields, table.shape[1]))
    numbers = [field.name for field in schema.fields if field.numeric]
    for f, (field, column, start) in enumerate(
        zip(schema.fields, schema.column_offsets, schema.row_offsets, strict=True)
    ):
        for b in range(len(ids)):
            known = [i for i in ids[b, column : column + field.width] if i > 0]
            emb[b, f] = table[[start + i for i in known]].mean(0) if known else table[start]
            if field.numeric and known:
                emb[b, f] *= values[b, numbers.index(field.name)]
    return emb


def lr(weights: Weights, emb: np.ndarray) -> np.ndarray:
    return np.zeros(len(emb))


def fm(weights: Weights, emb: np.ndarray) -> np.ndarray:
    return sum(((emb[:, i] * emb[:, j]).sum(1) for i, j in _pairs(emb)), np.zeros(len(emb)))


def fwfm(weights: Weights, emb: np.ndarray) -> np.ndarray:
    first = (emb * weights["backbone.first_order.weight"]).sum((1, 2)) + weights["backbone.first_order.bias"]
    pairs = zip(weights["backbone.pair_weight"], _pairs(emb), strict=True)
    return first + sum(r * (emb[:, i] * emb[:, j]).sum(1) for r, (i, j) in pairs)


def fmfm(weights: Weights, emb: np.ndarray) -> np.ndarray:
    pairs = zip(weights["backbone.pair_matrix"], _pairs(emb), strict=True)
    return sum((((emb[:, i] @ m) * emb[:, j]).sum(1) for m, (i, j) in pairs), np.zeros(len(emb)))


def deepfm(weights: Weights, emb: np.ndarray) -> np.ndarray:
    hidden = _network(weights, "backbone.mlp.hidden", emb.reshape(len(emb), -1))
    return fm(weights, emb) + (hidden @ weights["backbone.mlp.last.weight"].T + weights["backbone.mlp.last.bias"])[:, 0]


def dcnv2(weights: Weights, emb: np.ndarray) -> np.ndarray:
    first = crossed = emb.reshape(len(emb), -1)
    for layer in range(len([name for name in weights if name.startswith("backbone.cross.") and "weight" in name])):
        product = crossed @ weights[f"backbone.cross.{layer}.weight"].T + weights[f"backbone.cross.{layer}.bias"]
        crossed = crossed + first * product
    both = np.concatenate([crossed, _network(weights, "backbone.hidden", first)], axis=1)
    return (both @ weights["backbone.last.weight"].T + weights["backbone.last.bias"])[:, 0]


MODELS: dict[str, Callable[[Weights, np.ndarray], np.ndarray]] = {
    "lr": lr, "fm": fm, "fwfm": fwfm, "fmfm": fmfm, "deepfm": deepfm, "dcnv2": dcnv2,
}  # fmt: skip


def _pairs(emb: np.ndarray) -> list[tuple[int, int]]:
    return list(combinations(range(emb.shape[1]), 2))


def _network(weights: Weights, name: str, x: np.ndarray) -> np.ndarray:
    """Linear layers and ReLU, for a network without batch norm."""
    numbers = sorted({int(key.removeprefix(f"{name}.").split(".")[0]) for key in weights if key.startswith(f"{name}.")})
    for i in numbers:
        x = np.maximum(x @ weights[f"{name}.{i}.weight"].T + weights[f"{name}.{i}.bias"], 0)
    return x
