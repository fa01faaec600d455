"""`fieldctr report`: of real runs, from the call to the page."""

import shutil
from pathlib import Path

import pytest
import yaml
from calls import TRAIN, Calls

from fieldctr.catalog import conf_dir
from fieldctr.commands.report import study_of
from fieldctr.errors import UserError

FILES = {"report.html", "costs.csv", *(f"comparison.{kind}" for kind in ("md", "csv", "tex", "json"))}


@pytest.mark.slow
def test_runs_become_a_page_that_says_which_is_better(calls: Calls, trained: Path, tmp_path: Path) -> None:
    home = shutil.copytree(trained, tmp_path / "home")
    shutil.copytree(home / "r", home / "runs/lr_1")
    status, said = calls(home, "train", "DATASET", *TRAIN, "model=fm", "hydra.run.dir=runs/fm_1")
    assert status == 0, said
    status, said = calls(home, "report", "runs=runs", "against=lr", "outputs=o", "output=out")
    assert status == 0, said
    assert "fm and lr" in said or "fm is" in said
    assert {path.name for path in (home / "out").iterdir() if path.suffix != ".png"} == FILES
    page = (home / "out/report.html").read_text()
    for text in ("optimizer.lr", "hydra.run.dir=runs/fm_1", "Calibration on test", "Learning curves"):
        assert text in page


def test_a_report_compares_by_the_keys_of_compare() -> None:
    ours, theirs = (yaml.safe_load((conf_dir() / f"{name}.yaml").read_text()) for name in ("report", "compare"))
    own = {"study_folder", "output", "defaults"}
    assert {key: value for key, value in ours.items() if key not in own} == {
        key: value for key, value in theirs.items() if key not in own
    }


def test_the_study_is_the_one_that_all_runs_lie_in(tmp_path: Path) -> None:
    runs = [tmp_path / f"{study}/runs/shop/fat/seed1" for study in ("a", "b")]
    for run in runs:
        run.mkdir(parents=True)
    (tmp_path / "a/study.json").write_text("{}")
    assert study_of(None, runs[:1]) == tmp_path / "a"
    assert study_of(None, runs) is None
    assert study_of(None, runs[1:]) is None
    assert study_of(str(tmp_path / "a"), runs) == tmp_path / "a"
    with pytest.raises(UserError, match=r"no study\.json there"):
        study_of(str(tmp_path / "b"), runs)
