"""The main job through the installed console script: prepare, train, resume, evaluate, predict, sweep."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

SCRIPT = Path(sys.executable).parent / "fieldctr"
SMALL = [
    *("dataset=synthetic", "dataset.source.rows=8000", "tracker=none", "runtime.matmul=mkl"),
    *("trainer.max_epochs=2", "trainer.batch_size=256", "trainer.evals_per_epoch=2"),
]

Call = Callable[..., subprocess.CompletedProcess[str]]
Result = Callable[[Path], dict[str, Any]]
Until = Callable[[subprocess.Popen[str], Callable[[], object]], None]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, call: Call) -> Path:
    """A folder with one finished run of FAT in `run`."""
    folder = tmp_path_factory.mktemp("home")
    done = call(folder, "train", "model=fat", *SMALL, "seed=3", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    assert "test AUC" in done.stdout
    assert "of what is attainable" in done.stdout
    return folder


def test_a_run_leaves_everything_that_a_number_leads_back_to(home: Path, result: Result) -> None:
    run = result(home / "run")
    assert (run["model"], run["dataset"], run["enhancer"], run["seed"]) == ("fat", "synthetic", "none", 3)
    for split in ("valid", "test"):
        assert 0.5 < run[split]["auc"] < run[split]["bayes_auc"] < 1
        assert {"logloss", "ne", "ece", "gauc", "attainable_share"} <= set(run[split])
    assert run["num_parameters"]["total"] == run["num_parameters"]["embedding"] + run["num_parameters"]["dense"]
    assert {"prepare", "build", "fit", "evaluate"} <= set(run["seconds"])
    assert run["samples_per_s"] > 0
    assert run["peak_memory_mb"] > 0
    assert run["num_rows"] == {"train": 6_400, "valid": 800, "test": 800}
    assert run["samples"] == 2 * 6_400
    assert run["flops_per_sample"] > 0
    for key in ("best_step", "num_fields", "data_digest", "config_digest", "schema_digest", "versions", "commit"):
        assert key in run
    config = json.loads((home / "run/config.json").read_text())
    assert config["trainer"]["max_epochs"] == 2
    evaluations = [json.loads(line) for line in (home / "run/metrics.jsonl").read_text().splitlines()]
    assert len(evaluations) == 4
    assert max(record["valid/auc"] for record in evaluations) == run["valid"]["auc"]
    scores = np.load(home / "run/test.scores.npy")
    assert scores.dtype == np.float32
    label = np.load(home / "outputs/data" / run["data_digest"] / "test.label.npy")
    assert len(scores) == len(label)
    assert (home / "run/field_pairs.png").exists()


def test_one_seed_gives_one_result_and_a_resumed_run_is_not_run_again(home: Path, call: Call, result: Result) -> None:
    again = call(home, "train", "model=fat", *SMALL, "seed=3", "hydra.run.dir=again")
    assert again.returncode == 0, again.stderr
    assert result(home / "again")["test"] == result(home / "run")["test"]
    assert (home / "again/test.scores.npy").read_bytes() == (home / "run/test.scores.npy").read_bytes()
    before = (home / "run/result.json").stat().st_mtime_ns
    done = call(home, "train", "model=fat", *SMALL, "seed=3", "resume=true", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    assert (home / "run/result.json").stat().st_mtime_ns == before
    other = call(home, "train", "model=fat", *SMALL, "seed=4", "resume=true", "hydra.run.dir=run")
    assert other.returncode == 2
    assert "seed=4 (was 3)" in other.stderr


def test_evaluate_repeats_the_recorded_metrics(home: Path, call: Call, result: Result) -> None:
    done = call(home, "evaluate", "run=run", "split=valid")
    assert done.returncode == 0, done.stderr
    found = json.loads((home / "run/evaluate-valid.json").read_text())
    assert found == result(home / "run")["valid"]


def test_predict_scores_raw_rows_as_the_run_did(home: Path, call: Call) -> None:
    """Rows written to a CSV and read back get the very scores of the run's own test split."""
    vocabulary_rows = raw_test_rows(home)
    vocabulary_rows.write_csv(home / "rows.csv")
    done = call(home, "predict", "run=run", "input=rows.csv", "output=scored.parquet")
    assert done.returncode == 0, done.stderr
    scored = pl.read_parquet(home / "scored.parquet")
    logit = np.load(home / "run/test.scores.npy")[: len(scored)]
    np.testing.assert_allclose(scored["pctr"].to_numpy(), 1 / (1 + np.exp(-logit.astype(np.float64))), atol=1e-6)
    assert scored.columns == [*vocabulary_rows.columns, "pctr"]


def raw_test_rows(home: Path) -> pl.DataFrame:
    """The first raw test rows of the run's synthetic table, generated again."""
    from fieldctr.data.columns import OWN
    from fieldctr.data.sources import synthetic
    from fieldctr.data.table import SPLIT

    source = json.loads((home / "run/config.json").read_text())["dataset"]["source"]
    keywords = {key: value for key, value in source.items() if key != "_target_"}
    frame = synthetic.read(home, **keywords).frame.filter(pl.col(SPLIT) == "test").collect()
    return frame.drop(name for name in frame.columns if name.startswith(OWN)).head(500)


def test_a_sweep_goes_on_after_a_failed_job_and_says_so(home: Path, call: Call) -> None:
    own = ["trainer.precision=fp32,tf32", "runtime.device=cpu", "hydra.sweep.dir=sweep"]  # the second is for a GPU
    done = call(home, "train", "-m", "model=lr,fm", *SMALL, *own)
    assert done.returncode == 2
    statuses = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("synthetic_")]
    assert statuses.count("done") == 2, done.stdout
    assert "trainer.precision=tf32 needs a CUDA device" in done.stderr


def test_killed_anywhere_and_resumed_ends_as_if_undisturbed(home: Path, call: Call, until: Until) -> None:
    """Twice behind a checkpoint, while it trains or evaluates; test_every_operation.py has the moments before."""
    arguments = [SCRIPT, "train", "model=fat", *SMALL, "seed=3", "resume=true", "hydra.run.dir=killed"]
    for _ in range(2):
        known = set(home.glob("killed/checkpoint/step-*"))
        process = subprocess.Popen(arguments, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
        until(process, lambda known=known: {*home.glob("killed/checkpoint/step-*")} - known)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert call(home, *map(str, arguments[1:])).returncode == 0
    assert (home / "killed/model.safetensors").read_bytes() == (home / "run/model.safetensors").read_bytes()
    records = [json.loads(line)["step"] for line in (home / "killed/metrics.jsonl").read_text().splitlines()]
    assert records == [json.loads(line)["step"] for line in (home / "run/metrics.jsonl").read_text().splitlines()]


def test_interrupting_a_run_says_how_to_go_on(home: Path, until: Until) -> None:
    endless = ["trainer.max_epochs=1000", "trainer.patience=9000"]
    # Tests that run in the background are told to ignore SIGINT, and a child of theirs would inherit it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [SCRIPT, "train", "model=fat", *SMALL[:4], *endless, "hydra.run.dir=stopped"],
        cwd=home,
        stderr=subprocess.PIPE,
        text=True,
    )
    signal.signal(signal.SIGINT, before)
    until(process, lambda: list(home.glob("stopped/checkpoint/step-*")))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=1800)
    assert process.returncode == 130
    assert "resume=true" in errors
    assert "Traceback" not in errors
    assert not (home / "stopped/result.json").exists()


@pytest.mark.skipif("FIELDCTR_DATA" not in os.environ, reason="FIELDCTR_DATA names no folder of real tables")
def test_the_main_job_runs_on_real_clicks(home: Path, call: Call, result: Result) -> None:
    done = call(
        home, "train", "model=fm", "dataset=kuairand", "trainer.max_epochs=1", "tracker=none", "hydra.run.dir=real"
    )
    assert done.returncode == 0, done.stderr
    assert result(home / "real")["test"]["auc"] > 0.68
