"""synthetic_law: its formula, how its effects fall off, what its oracle reaches, and the rows that it draws."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fieldctr.analysis.scaling.bound import oracle_exponent, oracle_lines
from fieldctr.config import build
from fieldctr.data.prepare import SOURCE, prepared
from fieldctr.data.sources import synthetic_law
from fieldctr.data.sources.synthetic import sigmoid, zipf_cdf
from fieldctr.data.sources.synthetic_law import Kind, Teacher, oracle
from fieldctr.data.table import LABEL, PCTR, SPLIT
from fieldctr.errors import UserError
from fieldctr.ranking import auc

SMALL: dict[str, Any] = {
    "num_rows": 20_000, "num_fields": 4, "vocab_size": 12, "zipf": 1.0, "seed": 3, "click_rate": 0.2,
    "first_order": 0.4, "num_pair_effects": 20, "pair_strength": 1.0, "pair_exponent": 0.75,
    "num_triple_effects": 6, "triple_strength": 0.6, "triple_exponent": 0.75,
}  # fmt: skip


def drawn(**changes: Any) -> pl.DataFrame:
    return synthetic_law.read(Path(), **(SMALL | changes)).frame.collect()


def teacher_of(keys: dict[str, Any]) -> Teacher:
    kinds = [
        Kind(order, keys[f"num_{name}_effects"], keys[f"{name}_strength"], keys[f"{name}_exponent"])
        for order, name in ((2, "pair"), (3, "triple"))
    ]
    cdf = zipf_cdf(keys["vocab_size"], keys["zipf"])
    return Teacher(np.random.default_rng(keys["seed"]), keys["num_fields"], cdf, keys["first_order"], kinds)


def naive_logit(teacher: Teacher, row: list[int]) -> float:
    """The docstring's formula, one effect after the other, without the bias."""
    total = sum(float(teacher.first[field][value]) for field, value in enumerate(row))
    for group in teacher.groups:
        for rank, strength in enumerate(group.strengths):
            effect = float(strength)
            for field, factor in zip(group.fields, group.factors, strict=True):
                effect *= float(factor[row[field], rank])
            total += effect
    return total


@pytest.mark.parametrize("changes", [{}, {"num_triple_effects": 0}, {"num_pair_effects": 3, "vocab_size": 2}])
def test_the_drawn_rows_follow_the_formula(changes: dict[str, Any]) -> None:
    frame, teacher = drawn(num_rows=100, **changes), teacher_of(SMALL | changes)
    rows = frame.select("f1", "f2", "f3", "f4").rows()
    naive = np.array([naive_logit(teacher, list(row)) for row in rows])
    p = frame[PCTR].to_numpy()
    bias = np.log(p / (1 - p)) - naive
    assert bias == pytest.approx(np.full(100, bias[0]), abs=1e-9)
    np.testing.assert_allclose(teacher.logit(np.array(rows)), naive, atol=1e-9)


@pytest.mark.parametrize(("order", "exponent"), [(2, 0.75), (2, 1.2), (3, 0.6)])
def test_effects_fall_off_as_a_power_of_their_rank(order: int, exponent: float) -> None:
    kind = Kind(order, 48, 1.5, exponent)
    teacher = Teacher(np.random.default_rng(1), 6, zipf_cdf(20, 1.0), 0.0, [kind])
    codes = teacher.draw(np.random.default_rng(2), 100_000)
    spread = np.concatenate([group.parts(codes).std(0) for group in teacher.groups])
    strengths = np.concatenate([group.strengths for group in teacher.groups])
    order_of_rank = np.argsort(-strengths)
    slope = np.polyfit(np.log(np.arange(1, 49)), np.log(spread[order_of_rank]), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.03)
    assert float((strengths**2).sum()) == pytest.approx(1.5**2)
    assert len({group.fields for group in teacher.groups}) == len(teacher.groups)


def test_an_effect_has_variance_1_and_shows_in_none_of_its_fields() -> None:
    teacher = teacher_of(SMALL)
    for group in teacher.groups:
        for factor in group.factors:
            assert teacher.p @ factor == pytest.approx(np.zeros(factor.shape[1]), abs=1e-12)
            assert teacher.p @ factor**2 == pytest.approx(np.ones(factor.shape[1]))
    counts = drawn()["f2"].value_counts(sort=True)["count"].to_numpy() / 20_000
    assert counts == pytest.approx(teacher.p, abs=0.01)  # Zipf, the most frequent value first


@pytest.mark.parametrize("seed", [1, 2])
def test_the_oracle_grows_with_what_it_knows_and_its_exponent_is_the_effects(seed: int) -> None:
    exponent = 0.75
    keys = SMALL | {"num_fields": 6, "num_pair_effects": 1024, "pair_strength": 0.4, "pair_exponent": exponent}
    keys |= {"first_order": 0.0, "num_triple_effects": 0, "seed": seed}
    curve: Any = synthetic_law.read(Path(), **keys).facts["oracle"]
    assert [point["effects"] for point in curve] == [0, *(2**i for i in range(11))]
    for metric, sign in (("auc", 1), ("logloss", -1), ("lacking", -1)):
        assert (np.diff([sign * point[metric] for point in curve]) > 0).all(), metric
    assert curve[0]["auc"] == 0.5
    assert oracle_exponent(curve, "lacking") == pytest.approx(2 * exponent - 1, abs=0.03)
    assert oracle_exponent(curve, "logloss") == pytest.approx(2 * exponent - 1, abs=0.08)
    text = "\n".join(oracle_lines(curve))
    assert "k = 1024  AUC" in text
    assert "LogLoss = E + A / (k + 1/2)^alpha: alpha = 0." in text


def test_the_oracle_is_the_sum_of_the_strongest_effects() -> None:
    teacher = teacher_of(SMALL)
    codes = teacher.draw(np.random.default_rng(0), 2000)
    parts = np.concatenate([group.parts(codes) for group in teacher.groups], axis=1)
    strengths = np.concatenate([group.strengths for group in teacher.groups])
    strongest = np.argsort(-strengths)
    p = sigmoid(teacher.logit(codes))
    label = np.concatenate([np.ones(2000), np.zeros(2000)])
    curve = oracle(teacher, codes)
    assert [point["effects"] for point in curve] == [0, 1, 2, 4, 8, 16, 26]
    for point in curve:
        score = teacher.first_order(codes) + parts[:, strongest[: int(point["effects"])]].sum(1)
        expected = auc(label, np.tile(score, 2), np.concatenate([p, 1 - p]))
        assert point["auc"] == pytest.approx(expected, abs=1e-6)  # sums in another order can part ties
    assert curve[-1]["logloss"] == pytest.approx(float(-(p * np.log(p) + (1 - p) * np.log(1 - p)).mean()))


def test_rows_repeat_by_seed_and_read_in_part() -> None:
    whole = drawn(num_rows=70_000)
    assert whole.equals(drawn(num_rows=70_000))
    assert not whole.equals(drawn(num_rows=70_000, seed=4))
    lazy = synthetic_law.read(Path(), **(SMALL | {"num_rows": 70_000})).frame
    assert lazy.filter(pl.col("f1") == 1).select("f2").collect().equals(whole.filter(pl.col("f1") == 1).select("f2"))
    assert lazy.head(66_000).collect().equals(whole[:66_000])


@pytest.mark.parametrize("click_rate", [0.03, 0.5])
def test_clicks_follow_their_probability_at_the_rate_asked(click_rate: float) -> None:
    frame = drawn(num_rows=60_000, click_rate=click_rate)
    p, label = frame[PCTR].to_numpy(), frame[LABEL].to_numpy()
    error = np.sqrt(click_rate * (1 - click_rate) / len(p))
    assert label.mean() == pytest.approx(p.mean(), abs=4 * error)
    assert p.mean() == pytest.approx(click_rate, rel=0.03)
    for part in np.array_split(np.argsort(p), 10):
        assert label[part].mean() == pytest.approx(p[part].mean(), abs=4.5 * np.sqrt(p[part].mean() / len(part)))


@pytest.mark.parametrize("rows", [10, 3000])
def test_the_prepared_table_knows_what_is_attainable(
    rows: int, dataset_node: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    keys = {"num_rows": rows, "num_fields": 6, "num_pair_effects": 40, "num_triple_effects": 3, "click_rate": 0.5}
    node = dataset_node("synthetic_law", *(f"dataset.source.{key}={value}" for key, value in keys.items()))
    if rows == 10:  # too few for clicks and non-clicks in valid and test
        frame = synthetic_law.read(Path(), **{k: v for k, v in node["source"].items() if k != "_target_"}).frame
        assert frame.collect()[SPLIT].to_list() == ["train"] * 8 + ["valid", "test"]
        return
    facts = prepared(node, data_dir=tmp_path).facts
    assert all(0.6 < share < 1 for share in facts["bayes_auc"].values())
    assert facts["bayes_auc"]["train"] == pytest.approx(facts["oracle"][-1]["auc"], abs=0.03)
    assert sum(len(group["strengths"]) for group in facts["planted"]) == 43


def test_tiny_and_empty_laws_are_laws() -> None:
    nothing = {"num_pair_effects": 0, "num_triple_effects": 0, "vocab_size": 2, "num_fields": 3, "num_rows": 1}
    table = synthetic_law.read(Path(), **(SMALL | nothing | {"first_order": 0.0}))
    assert table.frame.collect().height == 1
    curve: Any = table.facts["oracle"]
    assert [(point["effects"], point["auc"]) for point in curve] == [(0, 0.5)]
    assert oracle_exponent(curve, "auc") is None
    assert table.frame.collect()[PCTR].to_list() == pytest.approx([0.2])


@pytest.mark.parametrize(
    "changes",
    [
        {"num_rows": 0},
        {"vocab_size": 1},
        {"num_fields": 2},
        {"click_rate": 1.0},
        {"num_pair_effects": -1},
        {"seed": -1},
    ],
)
def test_a_law_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    node = {"_target_": "fieldctr.data.sources.synthetic_law.read", **SMALL, **changes}
    with pytest.raises(UserError, match=rf"dataset\.source\.{next(iter(changes))}=.* is not allowed"):
        build(node, "dataset.source", Path(), kind=SOURCE)
