"""llactr_values against its formula in loops; rare values, its start, what folds, what thousands of fields cost."""

import math
from typing import Any

import pytest
import torch
import yaml
from loops import dot, randomized
from torch import Tensor
from torch.testing import assert_close

from fieldctr.catalog import conf_dir
from fieldctr.commands.value_vectors import drawn_values
from fieldctr.config import build
from fieldctr.enhancers.llactr_values import LLaCTRValues, principal
from fieldctr.inputs import Inputs
from fieldctr.models.contract import batch_of
from fieldctr.models.ctr_model import KINDS, SOURCE
from fieldctr.nn.flops import FlopCounter
from fieldctr.nn.value_lookup import ValueVectors
from fieldctr.schema import Field, Schema
from fieldctr.training.costs import LiveTensors

DIM, WIDTH = 4, 5
SCHEMA = Schema(
    (
        Field("user", 9),
        Field("price", 2, numeric=True),
        Field("image", 7, vector=3),
        Field("item", 7),
        Field("tags", 6, width=3),
        Field("past", 7, width=2, shares="item"),
    )
)
FEATURES = [(0, 1), (0, 4), (0, 8), (3, 2), (3, 6), (4, 1), (4, 2), (5, 2)]
FIELD, HAS_VALUE = 0, 1


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(1)


def read(width: int = WIDTH) -> ValueVectors:
    """Two of the texts are equal."""
    count = SCHEMA.num_fields + len(FEATURES)
    return ValueVectors(torch.tensor(FEATURES), torch.randperm(count).clamp(max=count - 2), torch.randn(count, width))


def made(values: ValueVectors, schema: Schema = SCHEMA, dim: int = DIM, **options: Any) -> LLaCTRValues:
    node = yaml.safe_load((conf_dir() / "enhancer/llactr_values.yaml").read_text(encoding="utf-8"))
    node = {key: value for key, value in node.items() if key not in ("defaults", *SOURCE)}
    return build(node | options, "enhancer", schema, dim, values, kind=KINDS["enhancer"])


def vectors_of(values: ValueVectors, ids: list[int]) -> list[Tensor]:
    """r_i of one sample, field by field."""
    known = {feature: int(values.rows[SCHEMA.num_fields + n]) for n, feature in enumerate(FEATURES)}
    unit = [v / math.sqrt(dot(v, v)) for v in values.vectors]
    found, at = [], 0
    for i, field in enumerate(SCHEMA.fields):
        own = ids[at : at + field.width]
        at += field.width
        own = [value for value in own if value] or [0] if field.width > 1 else own
        rows = [known.get((i, value), int(values.rows[i])) for value in own]
        found.append(torch.stack([unit[row] for row in rows]).mean(0))
    return found


@torch.no_grad()
def test_both_parts_are_their_formula() -> None:
    values, inputs = read(), batch_of(SCHEMA, 12)
    module, emb = randomized(made(values, fie_weight=0.7, fre_weight=0.3, fie_rank=3)), torch.randn(12, 6, DIM)
    logit, penalty = module.train()(emb, inputs)
    total, seen = 0.0, set()
    for e, ids, found in zip(emb, inputs.ids.tolist(), logit, strict=True):
        r = vectors_of(values, ids)
        extra = 0.0
        for i in range(6):
            for j in range(i + 1, 6):
                m = dot(module.metric.weight @ r[i], module.metric.weight @ r[j]) + float(module.shift)
                extra += m * dot(e[i], e[j])
            wanted = (module.fre.weight @ r[i] + module.fre.bias).softmax(0)
            total += float((wanted * (wanted / e[i].softmax(0)).log()).sum())
        seen |= {feature for feature in FEATURES if feature in {(0, ids[0]), (3, ids[3])}}
        assert float(found) == pytest.approx(0.7 * extra, rel=1e-4, abs=1e-4)
    assert float(penalty) == pytest.approx(0.3 * total / 12, rel=1e-4)
    assert seen
    assert module.eval()(emb, inputs)[1] == 0


@torch.no_grad()
def test_before_anything_is_learned_pairs_weigh_as_much_as_their_values_are_close() -> None:
    values, inputs, emb = read(), batch_of(SCHEMA, 5), torch.randn(5, 6, DIM)
    module = made(values, fie_rank=99).eval()  # no more directions than the vectors have
    assert module.metric.weight.shape == (WIDTH, WIDTH)
    for e, ids, found in zip(emb, inputs.ids.tolist(), module(emb, inputs)[0], strict=True):
        r = vectors_of(values, ids)
        cosine = sum(dot(r[i], r[j]) * dot(e[i], e[j]) for i in range(6) for j in range(i + 1, 6))
        assert float(found) == pytest.approx(cosine, rel=1e-4, abs=1e-4)


def test_a_low_rank_keeps_the_directions_that_hold_most() -> None:
    generator = torch.Generator().manual_seed(3)
    vectors = torch.randn(60, 3, generator=generator) @ torch.randn(3, 20, generator=generator)
    vectors += 0.01 * torch.randn(60, 20, generator=generator)
    directions = principal(vectors, 3)
    assert_close(directions @ directions.T, torch.eye(3), atol=1e-5, rtol=0)
    kept = vectors @ directions.T
    assert_close(kept @ kept.T, vectors @ vectors.T, atol=0.1, rtol=0.01)
    alone = principal(torch.ones(1, 20), 4)  # the placebo constant has one vector
    assert_close(alone @ alone.T, torch.eye(4), atol=1e-5, rtol=0)


def test_vectors_of_the_batch_or_all_of_them_are_mapped_with_one_result_and_gradient() -> None:
    values = read()
    module, found = randomized(made(values)).train(), []
    for count in (1, 40):  # fewer columns than vectors, and more
        inputs, emb = batch_of(SCHEMA, 40), torch.linspace(-1, 1, 40 * 6 * DIM).view(40, 6, DIM)
        parts = [Inputs(ids) for ids in inputs.ids.split(count)]
        outputs = [module(e, part) for e, part in zip(emb.split(count), parts, strict=True)]
        loss = sum(logit.sum() + penalty * len(logit) for logit, penalty in outputs)
        module.zero_grad()
        loss.backward()
        found.append([parameter.grad.clone() for parameter in module.parameters()])
    for one, other in zip(*found, strict=True):
        assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_what_is_folded_keeps_r_numbers_a_vector_and_the_logits() -> None:
    inputs, emb = batch_of(SCHEMA, 9), torch.randn(9, 6, DIM)
    module = randomized(made(read(), fie_rank=2)).eval()
    with torch.no_grad():
        before = module(emb, inputs)[0]
        assert not [name for name in module.state_dict() if "lookup" in name]
        module.fold()
        assert_close(module(emb, inputs)[0], before)
    assert module.lookup.vectors.shape[1] == 2
    assert [name for name, _ in module.named_parameters()] == ["shift"]


def test_weights_of_zero_leave_nothing() -> None:
    module = made(read(), fre_weight=0.0, fie_weight=0.0)
    logit, penalty = module.train()(torch.randn(3, 6, DIM), batch_of(SCHEMA, 3))
    assert not list(module.parameters())
    assert not logit.any()
    assert penalty == 0


def test_thousands_of_fields_cost_memory_and_arithmetic_in_proportion() -> None:
    flops, peaks = [], []
    for num_fields in (500, 2000):
        schema = Schema(tuple(Field(f"f{i}", 3) for i in range(num_fields)))
        values = drawn_values(schema)
        module = made(values._replace(vectors=values.vectors[:, :48]), schema, dim=8)
        emb = torch.randn(32, num_fields, 8, requires_grad=True)
        with LiveTensors() as live, FlopCounter() as counter:
            logit, penalty = module.train()(emb, batch_of(schema, 32))
            (logit.sum() + penalty).backward()
        flops.append(counter.flops)
        peaks.append(live.peak)
    for small, large in (flops, peaks):  # 16 times if it were quadratic
        assert 0 < small < large < 5 * small
