"""What `baseline` says where its libraries are absent, and where no ceiling says anything."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from fieldctr.analysis.baselines import boosting, logistic
from fieldctr.catalog import conf_dir
from fieldctr.commands.baseline import BaselineConfig, measure, place
from fieldctr.config import parse
from fieldctr.data.dataset import Dataset
from fieldctr.data.encode import encode
from fieldctr.data.fields.specs import field_specs
from fieldctr.data.table import Table


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Two fields, one of which has nearly a value per row; with weights."""
    rng = np.random.default_rng(1)
    frame = pl.DataFrame({"a": rng.integers(0, 4, 2000), "b": rng.integers(0, 1500, 2000), "w": rng.random(2000)})
    label = (rng.random(2000) < 0.2 + 0.15 * frame["a"].to_numpy()).astype(int)
    split = np.repeat(["train", "valid", "test"], [1200, 400, 400])
    table = Table.named(frame.with_columns(label=label, split=split).lazy())
    encode(table, field_specs({"a": {}, "b": {}}, 1), tmp_path, group=None, weight="w")
    return Dataset.load(tmp_path, name="table")


@pytest.fixture
def config() -> BaselineConfig:
    """That of the command."""
    node = yaml.safe_load((conf_dir() / "baseline.yaml").read_text(encoding="utf-8"))
    del node["defaults"], node["hydra"]
    return parse(BaselineConfig, node | {"data_root": "", "outputs": "", "dataset": {}, "threads": 1}, "")


def test_what_is_absent_is_said_with_its_cure(
    dataset: Dataset, config: BaselineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (boosting, logistic):
        monkeypatch.setattr(module, "version", lambda: None)
    rows, notes = measure(config, dataset)
    assert {row.kind for row in rows} == {"rate", "field", "oracle"}
    assert "pip install 'fieldctr[sklearn]'" in notes[0]
    assert "pip install 'fieldctr[lightgbm]'" in notes[1]
    assert "b (" in notes[2]
    assert "all fields (" in notes[2]
    result = {"model": "fm", "seed": 1, "test": {"auc": 0.7}}
    (tmp_path / "result.json").write_text(json.dumps(result))
    best = max((row for row in rows if row.kind == "field"), key=lambda row: row.scores["valid"]["auc"])
    assert f"target mean of {best.name}" in place(result, tmp_path, rows)
    assert "no ceiling is known that says something" in place(
        result, tmp_path, [row for row in rows if row.kind != "oracle"]
    )


def test_weights_move_the_numbers_and_each_step_is_one_line(
    dataset: Dataset, config: BaselineConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is an extra")
    splits = {name: replace(getattr(dataset, name), weight=None) for name in ("train", "valid", "test")}
    (weighted, _), (plain, _) = (measure(config, own) for own in (dataset, replace(dataset, **splits)))
    one, two = ({row.name.partition(" (")[0]: row for row in rows} for rows in (weighted, plain))
    for name in ("click rate of train", "a", "logistic regression"):
        assert one[name].scores["test"]["logloss"] != two[name].scores["test"]["logloss"]
    said = capsys.readouterr().err.splitlines()
    assert said[:3] == said[3:] == [line for line in said[:3] if line.startswith(("target", "logistic", "boosted"))]
