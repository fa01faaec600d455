"""`prepare`, `lint` and `baseline` through the installed console script."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

Call = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.slow

TABLE = [
    "dataset=tidy",
    "dataset.raw_dir=.",
    "dataset.source.files=clicks.csv",
    "dataset.source.label.column=click",
    "+dataset.fields.user={}",
    "+dataset.fields.leak={}",
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table whose field `leak` is the click, and whose second day has none."""
    folder, rng = tmp_path_factory.mktemp("home"), np.random.default_rng(1)
    click = (rng.random(4000) < 0.4).astype(int)
    click[800:1600] = 0
    frame = pl.DataFrame({"user": rng.integers(0, 50, 4000), "leak": click, "click": click})
    frame = frame.with_columns(ts=pl.int_range(4000) * 5 * 86400 // 4000)
    frame.write_csv(folder / "clicks.csv")
    return folder


def test_prepare_and_lint_say_what_is_wrong(home: Path, call: Call) -> None:
    done = call(home, "prepare", *TABLE)
    assert done.returncode == 0, done.stderr
    assert "lint error: leak: alone reaches a valid AUC of 1.000" in done.stdout
    done = call(home, "lint", *TABLE, "time={column: ts, unit: s}")
    assert done.returncode == 0, done.stderr
    assert "5 days, 0.0% (1970-01-02)" in done.stdout
    assert "error   odd_days: ts: 1 of 5 days" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("2 errors")
    done = call(home, "lint", *TABLE, "time={column: tss, unit: s}")
    assert done.returncode == 2
    assert "no column 'tss'. Nearest: ts" in done.stderr


def test_a_run_stands_between_floor_and_ceiling(home: Path, call: Call) -> None:
    table = ["dataset=synthetic", "dataset.source.rows=20000"]
    done = call(home, "train", "model=fm", *table, "trainer.max_epochs=1", "tracker=none", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    done = call(home, "baseline", *table, "logistic.C=[0.1,1]", "run=run")
    assert done.returncode == 0, done.stderr
    assert "of the way from logistic regression" in done.stdout
    place = json.loads((home / "run/evaluate-baseline.json").read_text())
    (folder,) = (home / "outputs/baseline").iterdir()
    listed = json.loads((folder / "baseline.json").read_text())["rows"]
    rows = {(row["name"], row["kind"]): row["scores"] for row in listed}
    (floor,) = (scores["test"]["auc"] for (_, kind), scores in rows.items() if kind == "lr")
    ceiling = rows["true probabilities", "truth"]["test"]["auc"]
    assert (place["floor"], place["ceiling"]) == (floor, ceiling)
    assert place["share"] == pytest.approx((place["test_auc"] - floor) / (ceiling - floor))
    assert rows["click rate of train", "rate"]["test"]["auc"] == 0.5
    assert 0.5 < floor < ceiling
    assert ("all fields", "oracle") not in rows
    assert "the oracle says nothing" in done.stdout
    assert "all fields (1.00)" in done.stdout
    assert sum("logistic regression" in line for line in done.stderr.splitlines()) == 1
    done = call(home, "baseline", *table, "dataset.min_count=3", "run=run")
    assert done.returncode == 2
    assert "run=run was trained on dataset=synthetic" in done.stderr
