"""fieldctr bench llm: what is measured, what is extrapolated and how, and what is refused; its picture."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fieldctr import compose
from fieldctr.analysis.cost_curves import draw
from fieldctr.commands import bench_llm
from fieldctr.commands.bench_llm import Job, Point, extended
from fieldctr.config import EncoderConfig, parse
from fieldctr.errors import UserError
from fieldctr.llm.efficiency import METHODS, Spent, Table, sentences, spent, value_texts

SMALL = ["encoder=tiny_llama", "rows=[40,20,100000,80]", "measured_rows=80", "fields=[3,2]", "values=[4]"]


def composed(folder: Path, *words: str) -> dict[str, Any]:
    return compose("bench llm", [*SMALL, f"outputs={folder}", "runtime.threads=1", "runtime.matmul=mkl", *words])


def test_more_rows_than_are_read_cost_what_the_slope_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[Table, tuple[str, ...]]] = []

    def measure(job: Job) -> dict[str, Spent]:
        asked.append((job.table, tuple(job.methods)))
        rows = job.table.rows
        return {name: Spent(rows * 0.5 + 1, rows * 0.1 + 300, rows) for name in job.methods}

    monkeypatch.setattr(bench_llm, "in_own_process", measure)
    bench_llm.main(composed(tmp_path))
    reading = ("kar", "ctrl")
    assert asked == [
        *((Table(20, 2, 4), METHODS), (Table(40, 2, 4), reading), (Table(80, 2, 4), reading)),
        *((Table(20, 2, 4), METHODS), (Table(20, 3, 4), METHODS), (Table(20, 2, 4), METHODS)),
    ]
    points = json.loads((tmp_path / "bench_llm/curves.json").read_text())["points"]
    far = {point["method"]: point for point in points if point["size"] == 100000}
    for name in reading:
        assert not far[name]["measured"]
        assert far[name]["seconds"] == pytest.approx(50001)
        assert far[name]["peak_mb"] == pytest.approx(10300)
    assert far["ssft"]["seconds"] == 11.0  # of the 20 rows, as of any
    said = capsys.readouterr().out
    assert "~50,001 s 10,300 MB" in said
    assert "slope between the two largest tables" in said
    assert (tmp_path / "bench_llm/curves.png").stat().st_size > 1000
    assert (tmp_path / "bench_llm/curves.svg").exists()


def test_a_cost_that_falls_is_not_extrapolated_below_itself() -> None:
    points = [Point("ctrl", "rows", size, 5.0 - size, 9.0 + size, True) for size in (1, 2)]
    assert extended(points, "ctrl", 5) == Point("ctrl", "rows", 5, 3.0, 14.0, False)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("measured_rows=30", "the slope needs two of rows="),
        ("values=[]", r"values=\[\] is not allowed"),
        ("encoder=random", "encoder.kind=random reads nothing"),
    ],
)
def test_what_cannot_be_measured_is_refused(word: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        bench_llm.main(composed(tmp_path, word))


def test_each_method_reads_what_it_is_said_to_read(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    config = parse(EncoderConfig, composed(tmp_path)["encoder"], "encoder")
    table, more = Table(rows=60, fields=4, values=5), Table(rows=120, fields=4, values=5)
    options: Any = {"rows_per_entity": 20, "device": torch.device("cpu"), "converted": tmp_path}
    found, other = spent(config, table, METHODS, **options), spent(config, more, ("kar", "ctrl"), **options)
    assert list(found) == list(METHODS)
    assert found["ctrl"].tokens == sum(len(text) + 1 for text in sentences("row", 60, table, 4))
    assert 1.9 < other["ctrl"].tokens / found["ctrl"].tokens < 2.2
    assert found["kar"].tokens < found["ctrl"].tokens / 5
    assert found["values"].tokens - found["ssft"].tokens == sum(len(text) + 1 for text in value_texts(table))
    assert all(one.seconds > 0 and one.peak_mb > 100 for one in found.values())


def test_the_picture_has_every_point_and_hollow_ones_where_nothing_was_measured(tmp_path: Path) -> None:
    points = [
        {"method": name, "against": against, "size": size, "seconds": size * 0.1, "peak_mb": 9.0, "measured": size < 50}
        for name in METHODS
        for against in ("rows", "fields", "values")
        for size in (10, 100)
    ]
    path = draw(points, METHODS, "CPU s", tmp_path / "curves")
    assert path.read_bytes() == draw(points[::-1], METHODS, "CPU s", tmp_path / "again").read_bytes()
    svg = (tmp_path / "curves.svg").read_text()
    for word in (*METHODS, "CPU s", "MB", "values a field"):
        assert word in svg
