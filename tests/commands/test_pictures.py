"""Every run leaves its picture; a trial of a search leaves none, and no run waits long for one."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from calls import TRAIN, Calls

from fieldctr.analysis.report.members import load_members
from fieldctr.analysis.report.run import learned
from fieldctr.commands.pictures import draw, planted_pairs
from fieldctr.data.dataset import Dataset
from fieldctr.runs import Run

PNG = b"\x89PNG\r\n\x1a\n"


def test_each_run_has_its_picture_and_a_trial_has_none(calls: Calls, trained: Path, tmp_path: Path) -> None:
    assert (trained / "r/learning.png").read_bytes().startswith(PNG)
    assert (trained / "r/learning.svg").exists()
    words = ["evaluate_test=false", f"hydra.run.dir={tmp_path}/trial", "model=fwfm"]
    code, said = calls(shutil.copytree(trained, tmp_path / "home"), "train", "DATASET", *TRAIN, *words)
    assert code == 0, said
    assert not [*(tmp_path / "trial").glob("*.png"), *(tmp_path / "trial").glob("*.svg")]


@pytest.fixture
def run(trained: Path) -> Run:
    folder = trained / "r"
    return cast("Run", SimpleNamespace(folder=folder, config=json.loads((folder / "config.json").read_text())))


def test_the_picture_shows_what_the_run_logged(run: Run, trained: Path) -> None:
    (member,) = load_members([run.folder])
    history = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    panels = {axes.get_title(loc="left"): axes for axes in learned(member, trained / "o").axes}
    assert list(panels) == ["train loss", "valid AUC", "valid LogLoss", "calibration"]
    for title, key in (("train loss", "train_loss"), ("valid AUC", "valid/auc"), ("valid LogLoss", "valid/logloss")):
        (line,) = panels[title].get_lines()
        assert np.allclose(line.get_xydata(), [(record["step"], record[key]) for record in history])
        (best,) = panels[title].collections
        assert np.asarray(best.get_offsets())[0][0] == member.result["best_step"]
    assert [text.get_text() for text in panels["calibration"].get_legend().get_texts()] == ["valid", "test"]


def test_matrices_of_own_models_are_drawn_too(run: Run, trained: Path, tmp_path: Path) -> None:
    result = json.loads((run.folder / "result.json").read_text())
    dataset = Dataset.load(trained / "o/data" / result["data_digest"], name="mini")
    shutil.copy(run.folder / "metrics.jsonl", tmp_path)
    other: Any = SimpleNamespace(folder=tmp_path, config=run.config)
    found = draw(other, dataset, {"mine": torch.rand(3, 3), "gates": torch.rand(3, 5)}, result, dataset.schema.fields)
    assert set(found) == {"learning", "mine", "gates"}
    assert all(path.read_bytes().startswith(PNG) for path in found.values())


def test_planted_pairs_are_framed_where_they_are_few() -> None:
    names = [f"f{i}" for i in range(10)]
    pair, triple, gone = {"fields": ["f2", "f7"]}, {"fields": ["f1", "f2", "f3"]}, {"fields": ["f1", "no_more"]}
    assert planted_pairs([pair, triple, gone], names) == [(2, 7), (7, 2)]
    assert planted_pairs([{"fields": [a, b]} for a in names for b in names if a < b], names) == []
    assert planted_pairs([], names) == []
