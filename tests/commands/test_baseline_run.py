"""A baseline as a run of a study scores what `fieldctr baseline` prints, and says how it is installed."""

import json
from pathlib import Path

import pytest

from fieldctr import UserError, compose
from fieldctr.commands import baseline_run
from fieldctr.commands.baseline import main
from fieldctr.commands.baseline_run import FITS, train_baseline

WORDS = [
    "dataset=synthetic",
    "dataset.source.rows=3000",
    "boosting.max_rounds=20",
    "logistic.C=[0.01,0.1]",
    "threads=1",
]
KINDS = {"lightgbm": "trees", "logistic": "lr"}  # by name, the kind of row of `fieldctr baseline`


@pytest.mark.parametrize("name", FITS)
def test_a_run_has_the_scores_of_the_command(name: str, tmp_path: Path) -> None:
    library, _ = FITS[name]
    if not library.version():
        pytest.skip(f"{name} is not installed: {library.CURE}")
    node = compose("baseline", [*WORDS, "threads=1", f"outputs={tmp_path}"])
    train_baseline(name, node, tmp_path / name)
    result = json.loads((tmp_path / name / "result.json").read_text(encoding="utf-8"))
    main(node)
    (path,) = tmp_path.glob("baseline/*/baseline.json")
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    (scores,) = (row["scores"] for row in rows if row["kind"] == KINDS[name])
    for split in ("valid", "test"):
        for metric in ("auc", "logloss"):
            assert result[split][metric] == pytest.approx(scores[split][metric], abs=1e-6)


@pytest.mark.parametrize("name", FITS)
def test_an_absent_library_is_said_with_its_cure(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library, _ = FITS[name]
    monkeypatch.setattr(library, "version", lambda: None)
    with pytest.raises(UserError, match=r"pip install 'fieldctr\["):
        baseline_run.train_baseline(
            name, compose("baseline", [*WORDS, "threads=1", f"outputs={tmp_path}"]), tmp_path / name
        )
    assert not (tmp_path / name).exists()
