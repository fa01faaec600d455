"""scripts/speed_table.py: the tables in their place on the page, from a measurement here and from files."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from by_path import loaded

from fieldctr.commands.machine import torch_as_it_was

SCRIPT = Path(__file__).parents[2] / "scripts" / "speed_table.py"
RATIO = {"setting": "fp32", "peer": "mkl", "least": 1.5, "largest": 2.5, "rounds": 3}
RATIOS = [
    {"what": "deepfm", "work": "step", "ratio": 2.0, **RATIO},
    {"what": "deepfm", "work": "step", "ratio": 1.25, **RATIO, "peer": "onednn"},
    {"what": "table", "work": "prepare", "ratio": 9.0, **RATIO, "setting": "polars", "peer": "ray"},
]
POINT = {"axis": "rows", "work": "prepare", "size": 10, "cpu_s": 1.0, "memory_mb": 1.0, "refused": ""}
TOO_LARGE = {"size": 90_000, "refused": "refused: takes 9 MB, and 1 are free here"}
SLOPE = {"measure": "cpu_s", "exponent": 0.812, "most": 1.05, "above": False}
GROWTH = {
    "config": {"model": {"_target_": "fieldctr.models.deepfm.DeepFM"}},
    "points": [POINT, POINT | {"size": 5000}, POINT | TOO_LARGE],
    "exponents": [{"axis": "rows", "work": "prepare"} | SLOPE],
}


@pytest.fixture
def script() -> ModuleType:
    return loaded(SCRIPT)


def test_the_tables_stand_in_their_place_and_nothing_else_is_changed(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "README.md"
    page.write_text("# Speed\n\n<!-- speed -->\nold\n<!-- end -->\n\nafter\n")
    found = {"library": "onednn", "shape": {"batch": 4096}, "ratios": RATIOS}
    for name, value in (("ratios", found), ("growth", GROWTH)):
        (tmp_path / name).write_text(json.dumps(value))
    monkeypatch.setattr(script, "PAGE", page)
    (tmp_path / "kept").write_text(json.dumps({"deepfm by mkl": ["105", "80", "1.31", "70%", "1.22"]}))
    files = [f"--{name}={tmp_path / name}" for name in ("ratios", "growth", "kept")]
    monkeypatch.setattr(sys, "argv", ["speed_table.py", *files, "--models", "deepfm", "--libraries", "mkl"])
    script.main()
    told = page.read_text()
    assert told.startswith("# Speed\n\n<!-- speed -->\nOne thread of ")
    assert told.endswith("<!-- end -->\n\nafter\n")
    assert "old" not in told
    assert "| `deepfm` | mkl | 105 | 80 | 1.31 | 70% | 1.22 |" in told
    assert "| deepfm | step | 2.00 (1.50 to 2.50) | 1.25 (1.50 to 2.50) |" in told
    assert "| table | prepare | 9.00 (1.50 to 2.50) |  |" in told
    assert "| rows | prepare | 10 to 5,000 | CPU s | 0.81 | 1.05 |" in told
    assert "rows 90,000: refused: takes 9 MB, and 1 are free here." in told


def test_a_line_of_overheads_is_measured_here(script: ModuleType) -> None:
    words = ["model=deepfm", "trainer.batch_size=64", "num_fields=5", "vocab_size=500", "steps=2", "evaluations=1"]
    with torch_as_it_was():
        line = script.overhead([*words, "runtime.threads=1", "runtime.matmul=mkl"])
    step, products, times, peak, evaluation = line
    assert int(step) >= int(products)
    assert float(times.strip("*")) > 0
    assert peak.endswith("%")
    assert float(evaluation.strip("*")) > 0


def test_what_reaches_its_goal_is_bold(script: ModuleType) -> None:
    assert [script.marked(times, 1.15) for times in (1.1, 1.15, 1.16)] == ["**1.10**", "**1.15**", "1.16"]
