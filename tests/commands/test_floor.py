"""A run below logistic regression on the same rows is told so, whoever has told what that reaches."""

import json
from pathlib import Path

import pytest

from fieldctr.commands.floor import below_floor
from fieldctr.training.trainer import Fit

ROWS = "a digest"


def fit(auc: float) -> Fit:
    best = {"step": 1, "valid/auc": auc}
    return Fit(1, best, [best], {}, 0, 0.0, "", cut=False)


def leave_run(folder: Path, model: str, digest: str, auc: float) -> None:
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({"model": model, "data_digest": digest, "valid": {"auc": auc}}))


def leave_baseline(outputs: Path, digest: str, auc: float) -> None:
    rows = [{"kind": kind, "scores": {"valid": {"auc": value}}} for kind, value in (("lr", auc), ("trees", 1.0))]
    folder = outputs / "baseline" / "one"
    folder.mkdir(parents=True)
    (folder / "baseline.json").write_text(json.dumps({"data_digest": digest, "rows": rows}))


@pytest.mark.parametrize("teller", ["run", "baseline"])
@pytest.mark.parametrize(("floor", "digest", "told"), [(0.71, ROWS, True), (0.69, ROWS, False), (0.71, "other", False)])
def test_the_floor_is_of_the_same_rows(tmp_path: Path, teller: str, floor: float, digest: str, told: bool) -> None:
    leave_run(tmp_path / "runs/fm", "fm", ROWS, 0.99)  # another model is no floor
    if teller == "run":
        leave_run(tmp_path / "runs/lr", "lr", digest, floor)
    else:
        leave_baseline(tmp_path, digest, floor)
    found = list(below_floor(fit(0.7), ROWS, tmp_path / "runs/mine", tmp_path))
    assert len(found) == told
    assert all("0.7000 is below the 0.7100" in text and "fieldctr search" in text for text in found)
