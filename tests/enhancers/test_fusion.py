"""llactr_attention and llactr_graph against their formulas in loops; their sparse form, their start, what they cost."""

import math
from typing import Any

import pytest
import torch
import yaml
from loops import dot, randomized
from torch import Tensor, nn
from torch.autograd import grad
from torch.testing import assert_close

from fieldctr.catalog import conf_dir
from fieldctr.config import build
from fieldctr.enhancers.neighbours import by_matrix, by_neighbour, mixed, nearest_fields, unit_vectors
from fieldctr.errors import UserError
from fieldctr.models.ctr_model import KINDS
from fieldctr.nn.flops import FlopCounter
from fieldctr.schema import Field, Schema
from fieldctr.training.costs import LiveTensors

NAMES = ("llactr_attention", "llactr_graph")
F, DIM, WIDTH = 6, 4, 5


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(1)


def schema(num_fields: int) -> Schema:
    return Schema(tuple(Field(f"f{i}", 3) for i in range(num_fields)))


def made(name: str, vectors: Tensor, dim: int = DIM, **options: Any) -> Any:
    node = yaml.safe_load((conf_dir() / f"enhancer/{name}.yaml").read_text(encoding="utf-8"))
    node = {key: value for key, value in node.items() if key not in ("defaults", "source", "epoch")}
    return build(node | options, "enhancer", schema(len(vectors)), dim, vectors, kind=KINDS["enhancer"])


def nearest(vectors: Tensor, field: int, count: int) -> dict[int, float]:
    """The other fields of the highest cosine, with it."""
    length = [math.sqrt(dot(v, v)) for v in vectors]
    cosine = {j: dot(vectors[field], vectors[j]) / length[field] / length[j] for j in range(len(vectors)) if j != field}
    return dict(sorted(cosine.items(), key=lambda pair: -pair[1])[:count])


@torch.no_grad()
@pytest.mark.parametrize("neighbours", [None, 2, 3, 99])
def test_attention_is_its_formula(neighbours: int | None) -> None:
    vectors, emb = torch.randn(F, WIDTH), torch.randn(3, F, DIM)
    module = randomized(made("llactr_attention", vectors, neighbours=neighbours, weight=0.7, temperature=2.0, rank=3))
    unit = [v / math.sqrt(dot(v, v)) for v in vectors]
    for e, logit in zip(emb, module(emb)[0], strict=True):
        total = 0.0
        for i in range(F):
            others = nearest(vectors, i, neighbours or F)
            learned = {j: dot(module.query.weight @ unit[i], module.key.weight @ unit[j]) for j in others}
            power = {j: math.exp((cosine + learned[j]) / 2.0) for j, cosine in others.items()}
            for j in others:
                total += power[j] / sum(power.values()) * dot(e[i], module.value.weight @ e[j])
        assert float(logit) == pytest.approx(0.7 * total, rel=1e-4, abs=1e-4)
    assert module(emb)[1] == 0


@torch.no_grad()
@pytest.mark.parametrize("neighbours", [1, 2, 99])
def test_the_graph_is_its_formula(neighbours: int) -> None:
    vectors, emb = torch.randn(F, WIDTH), torch.randn(3, F, DIM)
    module = randomized(made("llactr_graph", vectors, neighbours=neighbours, weight=0.7))
    near = [{j: max(s, 0.0) for j, s in nearest(vectors, i, neighbours).items()} for i in range(F)]
    degree = [sum(own.values()) for own in near]

    def heard(state: list[Tensor], mix: nn.Linear) -> list[Tensor]:
        told = []
        for i in range(F):
            total = torch.zeros(DIM)
            for j, s in near[i].items():
                if s:
                    total = total + s / math.sqrt(degree[i] * degree[j]) * (mix.weight @ state[j])
            told.append(total)
        return told

    for e, logit in zip(emb, module(emb)[0], strict=True):
        first = heard(list(e), module.rounds[0])
        second = heard(first, module.rounds[1])
        total = sum(dot(e[i], first[i]) + dot(e[i], second[i]) for i in range(F))
        assert float(logit) == pytest.approx(0.7 * total, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("count", [0, 1, 3, F - 1])
def test_sums_over_neighbours_and_their_gradients_are_those_of_the_matrix(count: int) -> None:
    emb, weight = torch.randn(3, F, DIM, requires_grad=True), torch.randn(F, count, requires_grad=True)
    fields = nearest_fields(unit_vectors(schema(F), torch.randn(F, WIDTH)), count)[1]
    assert fields.shape == (F, count)
    assert all(i not in row for i, row in enumerate(fields.tolist()))
    matrix = torch.zeros(F, F).scatter(1, fields, weight)
    seed = torch.randn(3, F, DIM)
    expected = matrix @ emb
    for form in (mixed, by_matrix, by_neighbour):
        found = form(emb, weight, fields)
        assert_close(found, expected)
        assert_close(form(emb, weight.detach(), fields), expected)
        if count:
            for a, b in zip(*(grad(x, (emb, weight), seed, retain_graph=True) for x in (found, expected)), strict=True):
                assert_close(a, b)


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_before_anything_is_learned_names_weigh_the_pairs(name: str) -> None:
    """Two fields with names alike and others apart: their product has the largest weight by far."""
    vectors = torch.eye(F, 64)
    vectors[4] = 0.8 * vectors[1] + 0.6 * vectors[4]
    weights = torch.zeros(F, F)
    for i in range(F):
        for j in range(i):
            emb = torch.zeros(1, F, 1)
            emb[0, [i, j]] = 1.0
            weights[i, j] = float(made(name, vectors, dim=1).forward(emb)[0])
    largest, second = weights.flatten().topk(2).values
    assert weights[4, 1] == largest > 2 * second


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_fields", [1, 2, 3])
def test_tables_of_few_fields(name: str, num_fields: int) -> None:
    emb = torch.randn(5, num_fields, DIM, requires_grad=True)
    logit, penalty = made(name, torch.randn(num_fields, WIDTH))(emb)
    (logit.sum() + penalty).backward()
    assert logit.shape == (5,)
    assert emb.grad is not None
    assert emb.grad.isfinite().all()
    if num_fields == 1:
        assert not logit.any()


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "count"), [("llactr_attention", 2 * 384 * 8 + 16 * 16), ("llactr_graph", 2 * 16 * 16)]
)
def test_parameters_and_what_is_left_of_them_in_service(name: str, count: int) -> None:
    module, emb = made(name, torch.randn(9, 384), dim=16), torch.randn(4, 9, 16)
    assert sum(p.numel() for p in module.parameters()) == count
    before = module(emb)[0]
    module.fold()
    assert_close(module(emb)[0], before)
    assert sum(value.numel() for value in module.state_dict().values()) <= 2 * 16 * 16 + 3 * 9 * 8


@pytest.mark.parametrize("name", NAMES)
def test_the_same_vectors_for_all_weigh_no_pair_above_another(name: str) -> None:
    """The placebo constant: attention is even, and so is the graph."""
    module = made(name, torch.ones(F, WIDTH), neighbours=3)
    weight = module.attention() if name == "llactr_attention" else module.adjacency
    assert_close(weight, torch.full((F, 3), 1 / 3))


def test_mistakes_are_told_in_words() -> None:
    for name in NAMES:
        node = yaml.safe_load((conf_dir() / f"enhancer/{name}.yaml").read_text(encoding="utf-8"))
        node = {key: value for key, value in node.items() if key not in ("defaults", "source", "epoch")}
        with pytest.raises(UserError, match="4 field vectors for 5 fields"):
            build(node, "enhancer", schema(5), DIM, torch.randn(4, WIDTH), kind=KINDS["enhancer"])
    with pytest.raises(UserError, match=r"enhancer\.temperature=0"):
        made("llactr_attention", torch.randn(F, WIDTH), temperature=0.0)


@pytest.mark.parametrize("name", NAMES)
def test_thousands_of_fields_cost_memory_and_arithmetic_in_proportion(name: str) -> None:
    flops, peaks = [], []
    for num_fields in (500, 2000):
        module = made(name, torch.randn(num_fields, 48), dim=8, neighbours=4)
        emb = torch.randn(32, num_fields, 8, requires_grad=True)
        with LiveTensors() as live, FlopCounter() as counter:
            module(emb)[0].sum().backward()
        flops.append(counter.flops)
        peaks.append(live.peak)
    for small, large in (flops, peaks):  # 16 times if it were quadratic
        assert 0 < small < large < 5 * small
