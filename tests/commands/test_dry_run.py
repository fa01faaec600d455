"""A dry run through the console script: it answers for a model that is larger than the machine, and leaves nothing."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

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


def test_a_run_that_is_there_stays_as_it_was(call: Call, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/result.json").write_text("{}")
    done = call(tmp_path, "train", "model=lr", *SMALL, "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["result.json"]
