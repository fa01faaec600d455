"""Each backbone against its equation, written as loops over samples and field pairs; published parameter counts."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from fieldctr.errors import UserError
from fieldctr.models.ctr_model import build_model
from fieldctr.nn.embedding import Inputs, LinearTerm
from fieldctr.schema import Field, Schema

Make = Callable[..., Any]
Node = Callable[[str], dict[str, Any]]
GIFT_CARDS = (1049, 106281, 120771, 13, 774, 31, 507, 502, 379, 26, 391, 42, 866)  # rows per field, row 0 included


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def emb(schema: Schema, inputs: Inputs) -> Tensor:
    return torch.randn(len(inputs.ids), schema.num_fields, 4)


def pairs(num_fields: int) -> Iterator[tuple[int, int]]:
    return ((i, j) for i in range(num_fields) for j in range(i + 1, num_fields))


def first_order(term: LinearTerm, inputs: Inputs) -> list[float]:
    """Tested against loops in tests/nn."""
    return term(inputs).tolist()


def test_lr(backbone: Make, schema: Schema, emb: Tensor, inputs: Inputs) -> None:
    model = backbone("lr", schema, 4)
    assert_close(model(emb, inputs), torch.tensor(first_order(model.linear, inputs)))


def test_fm(backbone: Make, schema: Schema, emb: Tensor, inputs: Inputs) -> None:
    model = backbone("fm", schema, 4)
    expected = [
        linear + sum(float(e[i] @ e[j]) for i, j in pairs(len(e)))
        for linear, e in zip(first_order(model.linear, inputs), emb, strict=True)
    ]
    assert_close(model(emb, inputs), torch.tensor(expected), atol=1e-4, rtol=1e-5)


def test_fwfm(backbone: Make, schema: Schema, emb: Tensor, inputs: Inputs) -> None:
    model = backbone("fwfm", schema, 4)
    expected = []
    for e in emb:
        logit = float(model.first_order.bias) + sum(float(w @ v) for w, v in zip(model.first_order.weight, e))  # noqa: B905
        weights = zip(model.pair_weight, pairs(len(e)), strict=True)
        expected.append(logit + sum(float(r * (e[i] @ e[j])) for r, (i, j) in weights))
    assert_close(model(emb, inputs), torch.tensor(expected), atol=1e-4, rtol=1e-5)


def test_fwfm_shows_its_pair_weights(backbone: Make, schema: Schema) -> None:
    model = backbone("fwfm", schema, 4)
    matrix = model.pair_weights()
    assert [float(matrix[i, j]) for i, j in pairs(5)] == model.pair_weight.tolist()
    assert torch.equal(matrix, matrix.triu(1))


def test_fmfm(backbone: Make, schema: Schema, emb: Tensor, inputs: Inputs) -> None:
    model = backbone("fmfm", schema, 4)
    expected = [
        linear + sum(float(e[i] @ m @ e[j]) for m, (i, j) in zip(model.pair_matrix, pairs(len(e)), strict=True))
        for linear, e in zip(first_order(model.linear, inputs), emb, strict=True)
    ]
    assert_close(model(emb, inputs), torch.tensor(expected), atol=1e-4, rtol=1e-5)


def test_deepfm_is_fm_and_a_network(backbone: Make, schema: Schema, emb: Tensor, inputs: Inputs) -> None:
    model = backbone("deepfm", schema, 4, hidden_dims=[6, 5])
    fm = torch.tensor([sum(float(e[i] @ e[j]) for i, j in pairs(len(e))) for e in emb])
    expected = torch.tensor(first_order(model.linear, inputs)) + fm + model.mlp(emb.reshape(len(emb), -1))
    assert_close(model(emb, inputs), expected, atol=1e-4, rtol=1e-5)


def test_transformer(backbone: Make, schema: Schema, emb: Tensor, inputs: Inputs) -> None:
    model = backbone("transformer", schema, 4, num_layers=2, num_heads=2)
    expected = [transformed(model, e) for e in emb]
    assert_close(model(emb, inputs), torch.tensor(expected), atol=1e-4, rtol=1e-4)


def transformed(model: Any, e: Tensor) -> float:
    z = [e[f] + model.field_bias[f] for f in range(len(e))]
    for layer in model.layers:
        q, k, v = zip(*((layer.qkv.weight @ layer.attention_norm(t)).split(4) for t in z), strict=True)
        z = [t + torch.cat([looped_head(q, k, v, f, h) for h in range(2)]) for f, t in enumerate(z)]
        w1, w2 = layer.ffn[0].weight, layer.ffn[2].weight
        hidden = [w1 @ layer.ffn_norm(t) for t in z]
        z = [t + w2 @ (u * u.sigmoid()) for t, u in zip(z, hidden, strict=True)]
    return float(model.readout.bias) + sum(float(model.readout.weight[0] @ t) for t in z)


def looped_head(q: tuple[Tensor, ...], k: tuple[Tensor, ...], v: tuple[Tensor, ...], f: int, h: int) -> Tensor:
    part = slice(2 * h, 2 * h + 2)
    scores = [float(q[f][part] @ other[part]) / 2**0.5 for other in k]
    shares = torch.tensor(scores).softmax(0)
    return sum((share * other[part] for share, other in zip(shares, v, strict=True)), torch.zeros(2))


def test_finalmlp(backbone: Make, schema: Schema, emb: Tensor, inputs: Inputs) -> None:
    model = backbone("finalmlp", schema, 4, first_dims=[6], second_dims=[5, 4], gate_dims=[3], num_heads=2)
    expected = []
    for e in emb:
        x, y = (
            relu_stack(stream, e.reshape(-1) * gate) for stream, gate in zip(model.streams, gates(model), strict=True)
        )
        logit = float(model.fusion.first(x) + model.fusion.second(y))
        logit += sum(
            float(x[3 * h + a] * model.fusion.heads[h, a, b] * y[2 * h + b])
            for h in range(2)
            for a in range(3)
            for b in range(2)
        )
        expected.append(logit)
    assert_close(model(emb, inputs), torch.tensor(expected), atol=1e-4, rtol=1e-4)


def gates(model: Any) -> list[Tensor]:
    found = [gate.last.weight @ relu_stack(gate.hidden, gate.context[0]) + gate.last.bias for gate in model.gates]
    return [2 / (1 + (-x).exp()) for x in found]


def relu_stack(layers: Any, x: Tensor) -> Tensor:
    for layer in layers:
        x = layer.weight @ x + layer.bias if isinstance(layer, torch.nn.Linear) else x.clamp(min=0)
    return x


def test_finalmlp_refuses_heads_that_do_not_divide(backbone: Make, schema: Schema) -> None:
    with pytest.raises(UserError, match=r"model\.num_heads=3"):
        backbone("finalmlp", schema, 4, first_dims=[6], second_dims=[5, 4], num_heads=3)


def test_wukong(backbone: Make, schema: Schema, emb: Tensor, inputs: Inputs) -> None:
    model = backbone("wukong", schema, 4, num_layers=2, project_dim=3, fm_hidden=[6], fm_dim=5, compression_dim=7)
    tokens = torch.stack([wukong_layers(model, e) for e in emb])
    assert_close(model(emb, inputs), model.mlp(tokens.flatten(1)), atol=1e-4, rtol=1e-4)


def wukong_layers(model: Any, e: Tensor) -> Tensor:
    for layer in model.layers:
        num_fields = len(e)
        mixed = torch.zeros(num_fields, layer.project.shape[1])
        for i in range(num_fields):
            for j in range(num_fields):
                mixed[i] += (e[i] @ e[j]) * layer.project[j]
        fm = relu_stack(layer.fm[1:], normed(mixed.reshape(-1), layer.fm[0]))
        linear = layer.compress[0].weight @ e.reshape(-1) + layer.compress[0].bias
        merged = layer.merge.weight @ torch.cat([fm, linear]) + layer.merge.bias
        e = normed(e + merged.reshape(e.shape), layer.norm)
    return e


def normed(x: Tensor, norm: Any) -> Tensor:
    scale = (x.var(correction=0) + 1e-5).sqrt()
    return (x - x.mean()) / scale * norm.weight + norm.bias


@pytest.mark.parametrize(
    ("name", "options", "total"),
    [
        ("fm", {}, 7_643_857),
        ("deepfm", {}, 7_897_913),
        ("fwfm", {}, 7_412_719),
        ("fmfm", {}, 7_723_728),
        ("finalmlp", {}, 10_250_790),
        ("wukong", {"num_layers": 8}, 8_299_937),
    ],
)
def test_counts_equal_those_of_the_llactr_repository(
    name: str, options: dict[str, Any], total: int, node: Node
) -> None:
    schema = Schema(tuple(Field(f"field{i}", rows) for i, rows in enumerate(GIFT_CARDS)))
    model = build_model(schema, dim=32, model=node(name) | options, enhancer=None, seed=1)
    assert model.num_parameters()["total"] == total


@pytest.mark.parametrize("layers", [1, 3])
def test_the_transformers_count_follows_its_formula(backbone: Make, schema: Schema, layers: int) -> None:
    model, d, ff = backbone("transformer", schema, 8, num_layers=layers, ffn_dim=20), 8, 20
    expected = layers * (3 * d * d + 2 * d * ff + 4 * d) + schema.num_fields * d + d + 1
    assert sum(p.numel() for p in model.parameters()) == expected
