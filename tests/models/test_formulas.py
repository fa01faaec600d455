"""Each backbone against its equation, written as loops over samples and field pairs; published parameter counts."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from fieldctr.errors import UserError
from fieldctr.inputs import Inputs
from fieldctr.models import xdeepfm
from fieldctr.models.ctr_model import build_model
from fieldctr.nn.embedding import EmbeddingTable, LinearTerm
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
    """b + sum_i w_i; of a list the mean of its known values, of a number its weight times it. No embedding counts."""
    model = backbone("lr", schema, 4)
    (table,) = (module.weight for module in model.modules() if isinstance(module, EmbeddingTable))
    (bias,) = (parameter for parameter in model.parameters() if parameter.dim() == 0)
    assert inputs.values is not None
    expected = []
    for ids, values in zip(inputs.ids.tolist(), inputs.values.tolist(), strict=True):
        logit, column, start, numbers = float(bias), 0, 0, iter(values)
        for field in schema.fields:
            own = ids[column : column + field.width]
            weights = [float(table[start + i, 0]) for i in ([i for i in own if i] or [0])]
            number = next(numbers) if field.numeric else 1.0
            logit += sum(weights) / len(weights) * (number if own != [0] else 1.0)
            column, start = column + field.width, start + field.vocab_size
        expected.append(logit)
    assert_close(model(emb, inputs), torch.tensor(expected))
    assert_close(model(torch.randn_like(emb), inputs), torch.tensor(expected))


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


def test_dnn(backbone: Make, schema: Schema, emb: Tensor, inputs: Inputs) -> None:
    model = backbone("dnn", schema, 4, hidden_dims=[6, 5])
    expected = [float(model.mlp.last(relu_stack(model.mlp.hidden, e.reshape(-1)))) for e in emb]
    assert_close(model(emb, inputs), torch.tensor(expected), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("softmax", [False, True])
def test_din(softmax: bool, backbone: Make, batch: Callable[..., Inputs]) -> None:
    schema = Schema(
        (Field("past", 7, 3, shares="item"), Field("user", 9), Field("tags", 6, 2), Field("item", 7),
         Field("seen", 9, 4, shares="user"), Field("last", 7, shares="item"))
    )  # fmt: skip
    model = backbone("din", schema, 4, attention_dims=[5], hidden_dims=[6], softmax=softmax)
    inputs = batch(schema, 24)
    inputs.ids[0, :3] = 0
    emb, expected = torch.randn(24, schema.num_columns, 4), []
    target, columns = {"past": 6, "seen": 3}, {"past": [0, 1, 2], "seen": [7, 8, 9, 10]}
    for e, ids in zip(emb, inputs.ids, strict=True):
        pooled = {"user": e[3], "tags": e[4:6][ids[4:6] > 0].mean(0) if ids[4:6].any() else e[4], "item": e[6]}
        pooled["last"] = e[11]  # a table in common with another field makes no history
        for unit, name in zip(model.units, ("past", "seen"), strict=True):
            v, known = e[target[name]], [e[j] for j in columns[name] if ids[j] > 0]
            weights = [unit.last(unit.hidden(torch.cat([x, v, x - v, x * v]))) for x in known]
            if softmax and known:
                weights = list(torch.stack(weights).softmax(0))
            pooled[name] = sum((w * x for w, x in zip(weights, known, strict=True)), torch.zeros(4))
        vector = torch.cat([pooled[field.name] for field in schema.fields])
        expected.append(float(model.mlp(vector.unsqueeze(0))))
    assert_close(model(emb, inputs), torch.tensor(expected), atol=1e-4, rtol=1e-5)


def test_din_needs_a_history(backbone: Make, schema: Schema) -> None:
    with pytest.raises(UserError, match=r"shares=FIELD.*model=dnn"):
        backbone("din", schema, 4)


def test_dcnv2(backbone: Make, schema: Schema, emb: Tensor, inputs: Inputs) -> None:
    model = backbone("dcnv2", schema, 4, num_layers=2, hidden_dims=[6, 5])
    expected = []
    for e in emb:
        x0 = x = e.reshape(-1)
        for layer in model.cross:
            x = torch.stack([a * (w @ x + c) + b for a, w, c, b in zip(x0, layer.weight, layer.bias, x, strict=True)])
        both = [*x.tolist(), *relu_stack(model.hidden, x0).tolist()]
        expected.append(
            float(model.last.bias) + sum(w * v for w, v in zip(model.last.weight[0].tolist(), both, strict=True))
        )
    assert_close(model(emb, inputs), torch.tensor(expected), atol=1e-3, rtol=1e-4)


def test_autoint(backbone: Make, schema: Schema, emb: Tensor, inputs: Inputs) -> None:
    model = backbone("autoint", schema, 4, num_layers=2, num_heads=2, head_dim=3)
    tokens = [autoint_layers(model, e) for e in emb]
    expected = [float(model.readout.bias + (model.readout.weight * e).sum()) for e in tokens]
    assert_close(model(emb, inputs), torch.tensor(expected), atol=1e-4, rtol=1e-4)


def autoint_layers(model: Any, e: Tensor) -> Tensor:
    for layer in model.layers:
        q, k, v, residual = layer.project.weight.split(6)  # rows of head 0, then of head 1
        heads = [
            torch.stack([attended(q[h] @ t, [k[h] @ u for u in e], [v[h] @ u for u in e]) for t in e])
            for h in (slice(0, 3), slice(3, 6))
        ]
        e = (torch.cat(heads, 1) + torch.stack([residual @ t for t in e])).clamp(min=0)
    return e


def attended(query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
    shares = torch.stack([query @ key for key in keys]).softmax(0)
    return sum((share * value for share, value in zip(shares, values, strict=True)), torch.zeros(len(values[0])))


@pytest.mark.parametrize("fields", [1, 2, 4, 5])
def test_ffm(backbone: Make, schema: Schema, batch: Callable[..., Inputs], fields: int) -> None:
    schema = Schema(schema.fields[:fields])
    model, inputs, expected = backbone("ffm", schema, 4), batch(schema, 12), []
    for linear, vectors in zip(first_order(model.linear, inputs), model.vectors(inputs), strict=True):
        for_field = [
            {(i + 1 + s) % fields: v[4 * s : 4 * s + 4] for s in range(fields - 1)} for i, v in enumerate(vectors)
        ]
        expected.append(linear + sum(float(for_field[i][j] @ for_field[j][i]) for i, j in pairs(fields)))
    assert_close(model(torch.empty(12, fields, 0), inputs), torch.tensor(expected), atol=1e-4, rtol=1e-5)


def test_xdeepfm(backbone: Make, schema: Schema, emb: Tensor, inputs: Inputs) -> None:
    model = backbone("xdeepfm", schema, 4, cin_dims=[3, 2], hidden_dims=[6])
    expected = torch.tensor(first_order(model.linear, inputs)) + model.mlp(emb.reshape(len(emb), -1))
    assert_close(model(emb, inputs), expected + torch.tensor([cin(model.cin, e) for e in emb]), atol=1e-3, rtol=1e-4)


def cin(model: Any, e: Tensor) -> float:
    maps, sums = list(e), []
    for layer in model.layers:
        weight = layer.weight.unflatten(1, (len(maps), len(e)))
        maps = [
            sum((w[i, j] * maps[i] * e[j] for i in range(len(maps)) for j in range(len(e))), 0 * e[0]) for w in weight
        ]
        sums += [float(x.sum()) for x in maps]
    return sum(w * s for w, s in zip(model.weight.tolist(), sums, strict=True))


def test_the_cin_in_pieces_is_the_whole(
    backbone: Make, schema: Schema, emb: Tensor, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits and gradients, with pieces of seven rows of 48 (12 samples, dim 4)."""
    model, found = backbone("xdeepfm", schema, 4, cin_dims=[3, 2], hidden_dims=[6]), []
    for products in (1 << 20, 7 * 25):
        monkeypatch.setattr(xdeepfm, "PRODUCTS", products)
        with torch.enable_grad():
            leaf = emb.clone().requires_grad_()
            logit = model(leaf, inputs)
            found.append([logit, *torch.autograd.grad(logit.sum(), [leaf, *model.cin.parameters()])])
    assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)


def test_hiformer(backbone: Make, schema: Schema, emb: Tensor, inputs: Inputs) -> None:
    model = backbone("hiformer", schema, 4, num_layers=2, num_heads=2, key_rank=3, value_rank=2, ffn_dim=5)
    expected = []
    for e in emb:
        z = [*(e + model.field_bias), model.task[0, 0]]
        for layer in model.layers:
            z = hiformer_layer(layer, z)
        assert len(z) == 1  # the last layer leaves the task token alone
        expected.append(float(model.readout.bias + model.readout.weight[0] @ z[0]))
    assert_close(model(emb, inputs), torch.tensor(expected), atol=1e-4, rtol=1e-4)


def hiformer_layer(layer: Any, z: list[Tensor]) -> list[Tensor]:
    tokens = [layer.attention_norm(t) for t in z]
    flat, first, out = torch.cat(tokens), len(z) - layer.num_queries, []
    for i in range(layer.num_queries):
        query, heads = tokens[first + i] @ layer.query[i], []
        for h in range(2):
            keys, values = (
                (c.right[h].T @ c.left.weight.chunk(2)[h] @ flat).split(2) for c in (layer.key, layer.value)
            )
            heads.append(attended(query[2 * h : 2 * h + 2] / 2**0.5, list(keys), list(values)))
        own = z[first + i] + torch.cat(heads)
        out.append(own + own_network(layer.ffn, i, layer.ffn_norm(own)))
    return out


def own_network(ffn: Any, token: int, x: Tensor) -> Tensor:
    hidden = x @ ffn.first.weight[token] + ffn.first.bias[token, 0]
    hidden = hidden * 0.5 * (1 + (hidden / 2**0.5).erf())  # GELU
    return hidden @ ffn.second.weight[token] + ffn.second.bias[token, 0]


def test_rankmixer(backbone: Make, schema: Schema, emb: Tensor, inputs: Inputs) -> None:
    model = backbone("rankmixer", schema, 4, num_layers=2, num_tokens=3, token_dim=6, ffn_dim=5)
    expected = []
    for e in emb:
        parts = e.reshape(-1).split([7, 7, 6])  # 20 numbers, as even as can be
        x = [project.weight @ part + project.bias for project, part in zip(model.project, parts, strict=True)]
        for layer in model.layers:
            mixed = [torch.cat([x[t][2 * h : 2 * h + 2] for t in range(3)]) for h in range(3)]
            s = [normed(m + t, layer.mixing_norm) for m, t in zip(mixed, x, strict=True)]
            x = [normed(own_network(layer.ffn, t, s[t]) + s[t], layer.ffn_norm) for t in range(3)]
        expected.append(float(model.readout.bias) + sum(float(model.readout.weight[0] @ t) / 3 for t in x))
    assert_close(model(emb, inputs), torch.tensor(expected), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("hiformer", {"num_heads": 3}, r"model\.num_heads=3 .* width, 4"),
        ("rankmixer", {"num_tokens": 3}, r"model\.num_tokens=3 .* model\.token_dim=64"),
        ("rankmixer", {"num_tokens": 32}, r"model\.num_tokens=32 exceeds the 20 numbers"),
    ],
)
def test_what_does_not_divide_is_refused(
    name: str, options: dict[str, Any], words: str, backbone: Make, schema: Schema
) -> None:
    with pytest.raises(UserError, match=words):
        backbone(name, schema, 4, **options)


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


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("dnn", {"hidden_dims": [6, 5]}, lambda v, f, d: v * d + network(f * d, 6, 5) + 5 + 1),
        (
            "dcnv2",
            {"num_layers": 3, "hidden_dims": [6, 5]},
            lambda v, f, d: v * d + 3 * ((f * d) ** 2 + f * d) + network(f * d, 6, 5) + f * d + 5 + 1,
        ),
        (
            "autoint",
            {"num_layers": 3, "num_heads": 2, "head_dim": 3},
            lambda v, f, d: v * d + 4 * d * 6 + 4 * 6**2 * (3 - 1) + f * 6 + 1,
        ),
        ("ffm", {}, lambda v, f, d: v * (f - 1) * d + v + 1),
        (
            "xdeepfm",
            {"cin_dims": [4, 3], "hidden_dims": [6, 5]},
            lambda v, f, d: v * (d + 1) + f * (f * 4 + 4 * 3) + 4 + 3 + network(f * d, 6, 5) + 5 + 1,
        ),
        (
            "hiformer",
            {"num_layers": 3, "num_heads": 2, "key_rank": 3, "value_rank": 5, "ffn_dim": 7},
            lambda v, f, d: v * d + 2 * hiformer_count(f + 1, f, d) + hiformer_count(1, f, d) + f * d + 2 * d + 1,
        ),
        (
            "rankmixer",
            {"num_layers": 3, "num_tokens": 4, "token_dim": 8, "ffn_dim": 7},
            lambda v, f, d: v * d + f * d * 8 + 4 * 8 + 3 * 4 * (2 * 8 * 7 + 7 + 8) + 4 * 8 * 3 + 8 + 1,
        ),
    ],
)
def test_a_count_follows_the_formula_in_its_yaml(
    name: str, options: dict[str, Any], count: Callable[[int, int, int], int], node: Node, schema: Schema
) -> None:
    model = build_model(schema, dim=8, model=node(name) | options, enhancer=None, seed=1)
    assert model.num_parameters()["total"] == count(schema.vocab_size, schema.num_fields, 8)


def network(*widths: int) -> int:
    """The hidden layers' weights and biases."""
    return sum(a * b + b for a, b in itertools.pairwise(widths))


def hiformer_count(q: int, f: int, d: int) -> int:
    """A(q) of its YAML, with two heads, ranks 3 and 5 and d_ff 7."""
    return q * d**2 + (2 + 1) * (f + 1) * d * (3 + 5) + q * (2 * d * 7 + 7 + d) + 4 * d
