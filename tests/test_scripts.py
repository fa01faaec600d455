"""The scripts that make tables: what they write, and what stands below it."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fieldctr.analysis.significance import delong
from fieldctr.ranking import auc

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    """The script, in a clone of its own."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    module = importlib.import_module("results")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    yield module
    sys.modules.pop("results")


def run(folder: Path, label: np.ndarray, scores: np.ndarray, seed: int) -> dict[str, Any]:
    """What a finished run leaves, as far as a table reads it."""
    folder.mkdir(parents=True)
    np.save(folder / "test.scores.npy", scores)
    measured = {"auc": auc(label, scores), "logloss": 0.6}
    return {
        "folder": folder,
        "seed": seed,
        "data_digest": "0123456789abcdef",
        "runtime": "cpu",
        "commit": "c" * 40,
        "num_parameters": {"dense": 7},
        "test": measured,
        "valid": measured,
    }


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """Two models, two seeds; the second is better."""
    rng = np.random.default_rng(3)
    label = (rng.random(400) < 0.4).astype(np.float32)
    (tmp_path / "outputs/data/0123456789abcdef").mkdir(parents=True)
    np.save(tmp_path / "outputs/data/0123456789abcdef/test.label.npy", label)
    return {
        row: {
            seed: run(tmp_path / row / str(seed), label, (rng.normal(size=400) + gain * label).astype(np.float32), seed)
            for seed in (1, 2)
        }
        for row, gain in (("lr", 0.5), ("fat", 1.5))
    }


def test_a_table_says_what_seeds_and_what_rows_leave_open(results: ModuleType, runs: dict[str, Any]) -> None:
    lines = results.table(runs, "shop", "fat").splitlines()
    assert [line.split(" | ")[0] for line in lines[2:4]] == ["| `lr`", "| `fat`"]
    gaps = [100 * (runs["lr"][seed]["test"]["auc"] - runs["fat"][seed]["test"]["auc"]) for seed in (1, 2)]
    assert f"{sum(gaps) / 2:+.2f} ± " in lines[2]
    label, base = results.tested(runs["fat"][1])
    gap = delong(label, base, results.tested(runs["lr"][1])[1])
    half = f"{(gap.high - gap.low) / 2:.4f}"
    assert lines[-1] == f"Over other test rows, differences of AUC hold to ± {half} to {half} (95 %, DeLong)."


def test_a_table_goes_where_its_mark_is_and_nowhere_else(results: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "conf/experiment/README.md"
    page.parent.mkdir(parents=True)
    page.write_text("a\n<!-- results shop -->\nold\n<!-- end -->\nb\n<!-- results other -->\nkept\n<!-- end -->\n")
    results.insert("new \\1", "results shop")
    assert page.read_text() == (
        "a\n<!-- results shop -->\nnew \\1\n<!-- end -->\nb\n<!-- results other -->\nkept\n<!-- end -->\n"
    )
    with pytest.raises(SystemExit, match="0 places marked 'results absent'"):
        results.insert("new", "results absent")


@pytest.mark.parametrize(
    "mark", ["results kuairand", "ablation kuairand", "results llactr kuairand", "results llactr coupon"]
)
def test_every_table_has_one_place(mark: str) -> None:
    page = (SCRIPTS.parent / "conf/experiment/README.md").read_text(encoding="utf-8")
    assert page.count(f"<!-- {mark} -->\n") == 1
