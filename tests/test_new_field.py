"""A field withheld, and given back to the trained model with few rows, through the console script."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from fieldctr.artifacts import file_digest

ROWS = [f"{user},{user % 3},{color},{(user + color) % 2}" for _ in range(6) for user in range(12) for color in range(5)]
TABLE = [
    *("dataset=tidy", "dataset.raw_dir=raw", "dataset.source.files=clicks.csv", "dataset.source.label.column=click"),
    "dataset.source.split={by: random, fractions: [0.6, 0.2, 0.2], seed: 1}",
    *("+dataset.fields.user={}", "+dataset.fields.size={}"),
]
FAT = ["model=fat_llm", "encoder=random", "model.num_bases=3", "model.top_k=2", "embedding_dim=4", "tracker=none"]
STEP = ["train", *TABLE, *FAT, "trainer.max_epochs=1"]

Call = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, call: Call) -> Path:
    """A run without the field `color` in `without`, and one that goes on with it in `with`."""
    folder = tmp_path_factory.mktemp("new_field")
    (folder / "raw").mkdir()
    (folder / "raw/clicks.csv").write_text("\n".join(["user,size,color,click", *ROWS]) + "\n")
    done = call(folder, *STEP, "hydra.run.dir=without")
    assert done.returncode == 0, done.stderr
    more = ["+dataset.fields.color={}", "warm_start=without", "train_rows=20", "hydra.run.dir=with"]
    done = call(folder, *STEP, *more)
    assert done.returncode == 0, done.stderr
    assert "warm start from without: 2 of 3 fields, 17 of 23 embedding rows; new: color" in done.stderr
    return folder


def test_the_result_says_where_it_began(home: Path, result: Callable[[Path], dict[str, Any]]) -> None:
    found, before = result(home / "with"), result(home / "without")
    assert "warm_start" not in before
    assert found["num_rows"] == before["num_rows"] | {"train": 20}
    start = found["warm_start"]
    assert (start["run"], start["new_fields"], start["known_rows"]) == ("without", ["color"], 17)
    assert start["config_digest"] == before["config_digest"]
    assert start["weights"] == file_digest(home / "without/model.safetensors")


def test_it_began_with_the_run_s_weights(home: Path) -> None:
    """After one step they are near."""
    before, after = (load_file(home / run / "model.safetensors") for run in ("without", "with"))
    for name in ("backbone.own.0.bases.q", "backbone.own.0.router.ffn_in", "backbone.readout.weight"):
        known = after[name][: len(before[name])]  # what is kept by field has a row more
        assert float((known - before[name]).abs().max()) < 0.01 * float(before[name].abs().max() + 1)
    assert after["backbone.field_bias"].shape[0] == 3


def test_evaluate_takes_the_whole_run(home: Path, call: Call, result: Callable[[Path], dict[str, Any]]) -> None:
    done = call(home, "evaluate", "run=with", "split=test")
    assert done.returncode == 0, done.stderr
    assert json.loads((home / "with/evaluate-test.json").read_text()) == result(home / "with")["test"]


def test_a_mistake_is_named(home: Path, call: Call) -> None:
    done = call(home, *STEP, "+dataset.fields.color={}", "warm_start=wihtout", "hydra.run.dir=wrong")
    assert done.returncode == 2
    assert "warm_start=wihtout: no config.json there" in done.stderr
