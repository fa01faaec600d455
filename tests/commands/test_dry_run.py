"""A dry run through the console script: it answers for a model that is larger than the machine, and leaves nothing."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fieldctr import compose
from fieldctr.commands.llm_demand import language_model_lines
from fieldctr.config import TrainConfig, parse
from fieldctr.data.prepare import prepared

Call = Callable[..., subprocess.CompletedProcess[str]]
SMALL = ["dataset.source.rows=2000", "trainer.dry_run=true", "tracker=none"]

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model=fat_xl", "embedding_dim=41984"], "does not fit here"),  # it would need 8 TB
        (["model=deepfm"], "by the second of two steps"),
    ],
    ids=["too_large", "small"],
)
def test_it_says_what_training_would_take_and_leaves_no_run(
    arguments: list[str], said: str, call: Call, tmp_path: Path
) -> None:
    done = call(tmp_path, "train", *arguments, *SMALL)
    assert done.returncode == 0, done.stderr
    for word in ("dense + ", "FLOPs per sample", "MB are free", "per million samples", said):
        assert word in done.stdout
    assert not list((tmp_path / "outputs").glob("train/*"))


def test_it_says_what_a_language_model_would_take_that_is_not_here(tmp_path: Path) -> None:
    words = ["dataset.source.rows=2000", "enhancer=kar", "encoder=llama3_8b", "knowledge=generate", "model=fm"]
    config = parse(TrainConfig, compose("train", [*words, f"outputs={tmp_path}"]), "")
    dataset = prepared(config.dataset, data_dir=tmp_path / "data")
    first, *lines, formula = language_model_lines(config, dataset)
    assert "6,979,588,096 weights in 32 layers of width 4,096" in first
    found = {line[:20].strip(): re.findall(r"[\d,.e-]+(?= tokens| PFLOPs| \+| GB)", line) for line in lines}
    assert list(found) == ["SSFT", "KAR", "KAR, written", "CTRL, stage 1"]
    tokens = {title: float(numbers[0].replace(",", "")) for title, numbers in found.items()}
    assert tokens["KAR"] < tokens["KAR, written"]
    assert tokens["CTRL, stage 1"] > 50 * len(dataset.train)
    assert all(float(numbers[2]) >= 14 for numbers in found.values())  # GB of the weights in 16 bits
    assert "2 weights of layers" in formula
    config = parse(TrainConfig, compose("train", [*words[:1], "enhancer=none", "model=fm"]), "")
    assert not list(language_model_lines(config, dataset))


def test_a_run_that_is_there_stays_as_it_was(call: Call, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/result.json").write_text("{}")
    done = call(tmp_path, "train", "model=lr", *SMALL, "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["result.json"]
