"""A blank is nobody: no key of a split, no part of a cross, and joins no side table. Its share is said."""

import random
from pathlib import Path

import polars as pl
import pytest
import yaml
from tables import tidy_node

from fieldctr.data.dataset import Dataset
from fieldctr.data.describe import describe
from fieldctr.data.prepare import prepared

BLANKS = [None, "", "NULL", "nan"]


def users(seed: int, rows: int = 3000, blanks: float = 0.4) -> list[str | None]:
    draw = random.Random(seed)
    return [draw.choice(BLANKS) if draw.random() < blanks else f"u{draw.randrange(40)}" for _ in range(rows)]


def table(folder: Path, user: list[str | None], split: str, fields: str) -> Dataset:
    draw = random.Random(7)
    rows = len(user)
    frame = pl.DataFrame({"user": user, "ad": [draw.randrange(5) for _ in range(rows)]}).with_columns(
        click=pl.Series([int(draw.random() < 0.5) for _ in range(rows)])
    )
    frame.write_csv(folder / "t.csv")
    node = tidy_node(folder, "t.csv", yaml.safe_load(fields), split=yaml.safe_load(split)) | {"group": "user"}
    return prepared(node, data_dir=folder / "out")


@pytest.mark.parametrize("seed", range(3))
def test_rows_of_nobody_are_split_one_by_one(seed: int, tmp_path: Path) -> None:
    user = users(seed)
    dataset = table(
        tmp_path, user, "{by: hash, column: user, fractions: [0.6, 0.2, 0.2], seed: 1}", "{user: {}, ad: {}}"
    )
    share = dataset.facts["fields"]["user"]["missing"]
    blank = sum(one in BLANKS for one in user)
    found = {name: share[name] * dataset.facts["rows"][name] for name in ("train", "valid", "test")}
    assert sum(found.values()) == pytest.approx(blank)
    for name, part in (("train", 0.6), ("valid", 0.2), ("test", 0.2)):
        assert found[name] / blank == pytest.approx(part, abs=0.05), "spread as the fractions say"
    assert f"rows without a user, which the split takes one by one: {blank:,}" in describe(dataset)
    vocabulary = pl.read_parquet(dataset.folder / "vocabulary.parquet").filter(pl.col("field") == "user")
    assert set(dataset.facts["group"]["blank"]) == {"train", "valid", "test"}
    assert dataset.facts["group"]["groups"] == len({one for one in user if one not in BLANKS}) >= len(vocabulary)


def test_a_cross_with_nobody_is_no_value(tmp_path: Path) -> None:
    user = users(1)
    fields = "{user: {}, both: {kind: cross, columns: [user, ad]}, rate: {kind: target_mean, of: [user, ad]}}"
    dataset = table(tmp_path, user, "{by: random, fractions: [0.6, 0.2, 0.2], seed: 1}", fields)
    facts = dataset.facts["fields"]
    for split in ("train", "valid", "test"):
        assert facts["both"]["missing"][split] == pytest.approx(facts["user"]["missing"][split])
        assert facts["rate"]["missing"][split] >= facts["user"]["missing"][split]
    words = pl.read_parquet(dataset.folder / "vocabulary.parquet").filter(pl.col("field") == "both")["value"]
    assert all(word.startswith("u") for word in words)
