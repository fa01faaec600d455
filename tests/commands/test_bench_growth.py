"""Growth of costs: a planted exponent is found, what memory does not hold is refused, and each kind of work is done."""

import json
from pathlib import Path
from typing import Any

import pytest

from fieldctr import UserError, compose
from fieldctr.analysis.cost_growth import Point, exponent, slopes
from fieldctr.commands import bench_growth
from fieldctr.commands.machine import torch_as_it_was
from fieldctr.config import parse

SIZES = [1000, 10_000, 100_000, 1_000_000]
AXES = ("rows", "fields", "dim", "vocabulary")
SMALL = [
    *("model=deepfm", "num_fields=3", "vocab_size=200", "trainer.batch_size=16", "steps=1"),
    *("runtime.threads=1", "runtime.matmul=mkl"),
]


def node(tmp_path: Path, *words: str, **sizes: list[int]) -> dict[str, Any]:
    sizes = {axis: sizes.get(axis, []) for axis in AXES}
    return compose(
        "bench growth", [*SMALL, f"outputs={tmp_path}", *(f"{axis}={own}" for axis, own in sizes.items()), *words]
    )


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 1.3, 2.0])
@pytest.mark.parametrize("start", [0.0, 0.01])
def test_the_exponent_is_found_whatever_a_start_costs(power: float, start: float) -> None:
    costs = [start + 1e-3 * size**power for size in SIZES]
    assert exponent(SIZES[::-1], costs[::-1]) == pytest.approx(power, abs=1e-9 if not start else 0.1)


def test_a_planted_quadratic_cost_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half as much as the linear cost at the largest size, a hundredth of it two sizes before."""

    def planted(config: object, axis: str, work: str, size: int) -> Point:
        square = size**2 / SIZES[-1] ** 2 if work == "evaluate" else 0
        return Point(axis, work, size, size / SIZES[-1] + 0.5 * square, 50.0)

    monkeypatch.setattr(bench_growth, "in_own_process", planted)
    bench_growth.main(node(tmp_path, rows=SIZES[::-1]))
    said, folder = capsys.readouterr().out, tmp_path / "growth"
    assert "Above what it may be: evaluate in rows (CPU s): 1." in said
    assert "prepare in rows" not in said
    found = json.loads((folder / "growth.json").read_text())
    assert {one["work"] for one in found["exponents"] if one["above"]} == {"evaluate"}
    assert [one["size"] for one in found["points"] if one["work"] == "prepare"] == SIZES
    assert "evaluate in rows" in (folder / "growth.md").read_text()
    assert (folder / "growth.png").stat().st_size > 0
    assert (folder / "growth.svg").stat().st_size > 0


def test_a_lazy_step_may_not_grow_faster_than_the_vocabulary() -> None:
    points = [Point("vocabulary", "step", size, size**1.01, float(size)) for size in SIZES]
    assert [(slope.measure, slope.above) for slope in slopes(points)] == [("cpu_s", True), ("memory_mb", False)]


def test_what_memory_does_not_hold_is_refused_in_words_and_the_rest_is_fitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_growth, "in_own_process", lambda *given: bench_growth.point_of(*given, ""))
    with torch_as_it_was():
        bench_growth.main(node(tmp_path, vocabulary=[100, 1000, 10**9]))
    said = capsys.readouterr().out
    assert "refused: takes" in said
    assert "may be taken, 80% of what is free here" in said
    found = json.loads((tmp_path / "growth/growth.json").read_text())
    assert [bool(one["refused"]) for one in found["points"]] == [False, False, True]
    assert len(found["exponents"]) == 2


@pytest.mark.parametrize(("axis", "work"), [(axis, work) for axis in AXES for work in bench_growth.WORK[axis][0]])
def test_each_kind_of_work_is_done_at_its_size(axis: str, work: str, tmp_path: Path) -> None:
    config = parse(bench_growth.BenchGrowthConfig, node(tmp_path), "")
    if work == "prepare":
        bench_growth.write_generated_csv(tmp_path / "table.csv", num_fields=3, vocab_size=200, rows=400, seed=1)
    size = 400 if axis == "rows" else 40
    with torch_as_it_was():
        point = bench_growth.point_of(config, axis, work, size, str(tmp_path))
    assert point[:3] == (axis, work, size)
    assert not point.refused
    assert point.cpu_s
    assert point.cpu_s > 0


def test_a_size_of_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="rows"):
        bench_growth.main(node(tmp_path, rows=[0]))
