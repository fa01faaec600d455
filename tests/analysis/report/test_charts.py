"""What is drawn: positions, groups, fronts, against plain twins of them."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldctr.analysis.report.chart import Axis, Chart, Mark, drawing, scales, thinned, ticks
from fieldctr.analysis.report.charts import pareto, tones
from fieldctr.analysis.report.members import calibration, load_members
from fieldctr.analysis.report.searches import trace, worth


@pytest.mark.parametrize("seed", range(20))
def test_ticks_are_round_in_order_and_say_where_they_are(seed: int) -> None:
    rng = np.random.default_rng(seed)
    log = bool(seed % 2)
    low = float(10 ** rng.uniform(-4, 5)) * (1 if log else rng.choice([-1, 1]))
    high = low * float(10 ** rng.uniform(0.1, 4)) if log else low + float(10 ** rng.uniform(-3, 3))
    chart = Chart("c", "", Axis("x", log=log), Axis("y"), (Mark("dots", [low, high], [0.0, 1.0], "t0"),))
    x, y = scales(chart, 300, 200)
    assert x(low) < x(high)
    assert y(0.0) > y(1.0)
    found = ticks(chart.x, x)
    assert 1 <= len(found) <= 10
    assert all(-0.01 <= tick.at <= 300.01 for tick in found)
    assert [tick.at for tick in found] == sorted(tick.at for tick in found)
    for tick in found:
        said = tick.text.replace("\N{MINUS SIGN}", "-")
        unit = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}.get(said[-1], 1.0)
        assert math.isclose(float(said.rstrip("kMGT")) * unit, tick.value, rel_tol=6e-3, abs_tol=1e-12)


def test_what_cannot_be_drawn_is_left_out() -> None:
    nan = float("nan")
    marks = (Mark("line", [1, 2, 3], [nan, 1.0, float("inf")], "t0"), Mark("dots", [0, 5], [1.0, 1.0], "t1"))
    found = drawing(Chart("c", "", Axis("x", log=True), Axis("y"), marks))
    assert len([shape for shape in found.shapes if shape.kind == "dots"]) == 1
    assert "nan" not in "".join(shape.path for shape in found.shapes)
    assert drawing(Chart("c", "", Axis("x"), Axis("y"), ())).shapes == []


@pytest.mark.parametrize("seed", range(10))
def test_the_front_is_what_no_other_beats(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = [(float(cost), float(value)) for cost, value in rng.integers(0, 8, (12, 2))]
    found = pareto(points, smaller=False)
    for cost, value in points:
        beaten = any(c <= cost and v >= value and (c < cost or v > value) for c, v in points)
        assert ((cost, value) in [points[i] for i in found]) != beaten
    assert found == pareto([(cost, -value) for cost, value in points], smaller=True)


def test_calibration_is_that_of_sorted_rows(made: Any) -> None:
    runs = load_members(made.runs["fat"])
    found = calibration(runs, "test", made.outputs)
    assert found is not None
    logit = np.concatenate([np.load(run.folder / "test.scores.npy") for run in runs]).astype(float)
    label = np.tile(np.load(made.outputs / "data/0123456789abcdef/test.label.npy"), len(runs))
    order, chance = np.argsort(logit), 1 / (1 + np.exp(-logit))
    for values, own in ((chance, found.predicted), (label, found.observed)):
        plain = [part.mean() for part in np.array_split(values[order], len(own))]
        np.testing.assert_allclose(own, plain, atol=0.02)
    assert calibration(runs, "valid", made.outputs) is None


def test_calibration_counts_weights_as_repetitions(made: Any, tmp_path: Path) -> None:
    run = load_members(made.runs["fat"])[0]
    label = np.load(made.outputs / "data/0123456789abcdef/test.label.npy")
    logit = np.load(run.folder / "test.scores.npy")
    weight, found = np.random.default_rng(0).integers(0, 4, len(label)), []
    for name, times in (("weighted", None), ("repeated", weight)):
        table, folder = tmp_path / name / "data/0123456789abcdef", tmp_path / name / "run"
        table.mkdir(parents=True)
        folder.mkdir()
        np.save(table / "test.label.npy", label if times is None else label.repeat(times))
        np.save(folder / "test.scores.npy", logit if times is None else logit.repeat(times))
        if times is None:
            np.save(table / "test.weight.npy", weight.astype(np.float32))
        found.append(calibration([run._replace(folder=folder)], "test", tmp_path / name))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-9)


def test_worth_is_best_minus_worst_mean_of_a_planted_effect() -> None:
    rng = np.random.default_rng(3)
    done = [
        {"number": i, "params": {"lr": float(10 ** rng.uniform(-4, -1)), "block": "ab"[i % 2], "fixed": 1}}
        for i in range(40)
    ]
    for trial in done:
        effect = 0.02 if trial["params"]["block"] == "b" else 0.0  # type: ignore[index]
        trial["valid"] = {"auc": 0.7 + effect - 0.01 * abs(math.log10(trial["params"]["lr"]) + 2)}  # type: ignore[index]
    block, lr = worth("block", done, "b"), worth("lr", done, 0.01)
    assert block is not None
    assert lr is not None
    assert (block.best, lr.groups) == ("b", 4)
    assert block.worth is not None
    assert abs(block.worth - 0.02) < 0.005
    few = worth("lr", done[:3], 0.01)
    assert few is not None
    assert few.worth is None
    low, _, high = lr.best.partition(" to ")
    assert float(low) < 0.02 < 10 * float(high)
    assert worth("fixed", done, 1) is None


def test_a_search_without_a_finished_trial_is_shown_empty() -> None:
    found = trace({"arm": "a", "trials": [{"number": 0, "params": {"x": 1}, "valid": None}]}, 1)
    assert (found.best, found.charts, found.worths) == (None, [], [])


def test_the_reference_is_black_the_best_are_coloured_and_the_rest_grey(made: Any) -> None:
    many = dict(made.comparisons[0])
    arm = many["arms"][0]
    many["arms"] = [arm | {"name": str(i), "metrics": {"auc": {"mean": 0.7 - i / 100}}} for i in range(12)]
    found = tones(many | {"against": "5"})
    assert found["5"] == "ref"
    assert [found[str(i)] for i in (0, 1, 6, 7, 8, 11)] == ["t0", "t1", "t5", "t6", "muted", "muted"]


@pytest.mark.parametrize(("count", "most"), [(1, 5), (5, 5), (1000, 80), (81, 80)])
def test_thinning_keeps_both_ends(count: int, most: int) -> None:
    kept = thinned(count, most)
    assert len(kept) == min(count, most)
    assert {0, count - 1} <= set(kept.tolist())
