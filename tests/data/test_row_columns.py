"""Sample weights, blank groups and the share of non-clicks kept: what preparation makes of them, and refuses."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tables import tidy_node

from fieldctr.data.dataset import Dataset
from fieldctr.data.describe import describe
from fieldctr.data.prepare import prepared
from fieldctr.data.table import SPLITS
from fieldctr.errors import UserError

ROWS = 600


def table(folder: Path, **columns: object) -> Path:
    """Rows with a user, an ad and a click, in CSV; columns of your own beside them or in their place."""
    generator = np.random.default_rng(5)
    plain = {
        "user": generator.integers(0, 40, ROWS).astype(str),
        "ad": generator.integers(0, 9, ROWS),
        "click": generator.integers(0, 2, ROWS),
        "part": np.where(np.arange(ROWS) % 4 == 0, "valid", np.where(np.arange(ROWS) % 4 == 1, "test", "train")),
    }
    folder.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(plain | columns).write_csv(folder / "t.csv")
    return folder


def node(folder: Path, **changes: Any) -> dict[str, Any]:
    split = {"by": "column", "column": "part"}
    return tidy_node(folder, "t.csv", {"user": {}, "ad": {}}, split=split) | changes


def splits(dataset: Dataset) -> list[Any]:
    return [dataset.train, dataset.valid, dataset.test]


def test_weights_stand_beside_their_rows_and_their_facts_are_said(tmp_path: Path) -> None:
    weight = np.random.default_rng(1).exponential(size=ROWS).astype(np.float32)
    weight[::7] = 0
    table(tmp_path / "raw", w=weight, ad=np.arange(ROWS) % 97)
    dataset = prepared(node(tmp_path / "raw", weight="w"), data_dir=tmp_path / "data")
    frame = pl.read_csv(tmp_path / "raw/t.csv")
    facts = dataset.facts["weight"]
    for name, split in zip(SPLITS, splits(dataset), strict=True):
        own = frame.filter(pl.col("part") == name)
        assert np.array_equal(split.weight, own["w"].to_numpy().astype(np.float32))
        mass = own["w"].to_numpy().astype(np.float64)
        assert facts["mean"][name] == pytest.approx(mass.mean(), rel=1e-6)
        assert facts["positive_rate"][name] == pytest.approx(mass @ own["click"].to_numpy() / mass.sum(), rel=1e-6)
    assert "sample weights in w: mean train" in describe(dataset)
    plain = prepared(node(tmp_path / "raw"), data_dir=tmp_path / "data")
    assert plain.digest != dataset.digest
    assert "weight" not in plain.facts
    thin = prepared(node(tmp_path / "raw", weight="w", train_fraction=0.5), data_dir=tmp_path / "data")
    assert thin.train.weight is not None
    assert len(thin.train.weight) == len(thin.train) < len(dataset.train)
    some = dataset.train.sample(50, seed=1)
    assert np.array_equal(some.weight, dataset.train.weight[np.sort(np.random.default_rng(1).permutation(300)[:50])])


@pytest.mark.parametrize("only", ["nothing", "clicks", "others"])
@pytest.mark.parametrize("split", SPLITS)
def test_a_split_of_which_a_class_weighs_nothing_is_refused(split: str, only: str, tmp_path: Path) -> None:
    folder = table(tmp_path / "raw")
    frame = pl.read_csv(folder / "t.csv")
    light = {"nothing": pl.lit(True), "clicks": pl.col("click") == 0, "others": pl.col("click") == 1}[only]
    weight = pl.when((pl.col("part") == split) & light).then(0.0).otherwise(2.5)
    frame.with_columns(w=weight).write_csv(folder / "t.csv")
    with pytest.raises(UserError, match=rf"weights in column 'w' sum to .* of split '{split}'"):
        prepared(node(folder, weight="w"), data_dir=tmp_path / "data")


@pytest.mark.parametrize("bad", ["-1", "", "nan", "inf", "1e39"])
def test_a_weight_that_cannot_be_is_refused(bad: str, tmp_path: Path) -> None:
    folder = table(tmp_path / "raw", w=["1"] * 100 + [bad] + ["2"] * (ROWS - 101))
    with pytest.raises(UserError, match=r"weight of a row is .*expected a number from 0"):
        prepared(node(folder, weight="w"), data_dir=tmp_path / "data")


def test_a_blank_group_is_nobody_and_its_share_is_said(tmp_path: Path) -> None:
    generator = np.random.default_rng(2)
    blank = generator.random(ROWS) < 0.41
    user = np.where(blank, "", generator.integers(0, 40, ROWS).astype(str))
    folder = table(tmp_path / "raw", user=user)
    dataset = prepared(node(folder, group="user"), data_dir=tmp_path / "data")
    facts, part = dataset.facts["group"], pl.read_csv(folder / "t.csv")["part"].to_numpy()
    assert facts["groups"] == 40
    for name, split in zip(SPLITS, splits(dataset), strict=True):
        assert np.array_equal(split.group == 0, blank[part == name])
        assert facts["blank"][name] == pytest.approx(blank[part == name].mean())
    assert "rows without one, which count in no group: train 4" in describe(dataset)
    whole = prepared(node(table(tmp_path / "whole"), group="user"), data_dir=tmp_path / "data")
    assert set(whole.facts["group"]["blank"].values()) == {0}
    assert "without one" not in describe(whole)
    del whole.facts["group"]["blank"]  # as in tables prepared before
    assert "groups of gAUC: 40 values of user" in describe(whole)


def test_negative_rate_changes_no_byte_and_is_said(tmp_path: Path) -> None:
    folder = table(tmp_path / "raw")
    plain, thinned = (prepared(node(folder, negative_rate=rate), data_dir=tmp_path / "data") for rate in (None, 0.1))
    assert plain.digest == thinned.digest
    assert (plain.negative_rate, thinned.negative_rate) == (None, 0.1)
    rate = thinned.facts["positive_rate"]["train"]
    assert f"left out: train {rate / (rate + (1 - rate) / 0.1):.3%}" in describe(thinned)
    assert "negative_rate" not in describe(plain)
    for wrong in (0, 1.5, "half"):
        with pytest.raises(UserError, match=r"dataset\.negative_rate="):
            prepared(node(folder, negative_rate=wrong), data_dir=tmp_path / "data")
