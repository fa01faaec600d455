"""200 made-up clicks and their side tables, in the repository: joins are tested where FIELDCTR_DATA names no table."""

import csv
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from omegaconf import OmegaConf

from fieldctr.data.dataset import Dataset
from fieldctr.data.prepare import prepared
from fieldctr.data.table import SPLITS
from fieldctr.errors import UserError

FOLDER = Path(__file__).parent / "made_shop"
Row = dict[str, str]


def node() -> dict[str, Any]:
    config: Any = OmegaConf.to_container(OmegaConf.load(FOLDER / "shop.yaml"))
    return config | {"raw_dir": str(FOLDER)}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepared(node(), data_dir=tmp_path_factory.mktemp("made_shop"))


def read(name: str, delimiter: str = ",") -> list[Row]:
    with (FOLDER / name).open(newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """The samples with what dictionaries of the side tables say of them; of an item told twice the first."""
    items = {row["item_id"]: row for row in reversed(read("items.csv"))}
    users = {row["id"]: row for row in read("users.tsv", "\t")}
    nothing = {"kind": "", "tags": "", "age": "", "city": ""}
    return [nothing | row | items.get(row["item"], {}) | users.get(row["user"], {}) for row in read("clicks.csv")]


def ids(dataset: Dataset, field: str) -> list[list[int]]:
    """The ids of a field for all rows, in the order of the file; a list without the zeros that fill it up."""
    index = dataset.schema.index(field)
    start, width = dataset.schema.column_offsets[index], dataset.schema.fields[index].width
    parts = [getattr(dataset, split) for split in SPLITS]
    found = [row[start : start + width].tolist() for part in parts for row in part.ids_of(slice(0, len(part)))]
    return [[one for one in row if one] for row in found]


def test_every_row_is_there_once_and_in_order(dataset: Dataset, rows: list[Row]) -> None:
    parts = [getattr(dataset, split) for split in SPLITS]
    assert [len(part) for part in parts] == [140, 30, 30]
    assert [int(label) for part in parts for label in part.label] == [int(row["clicked"]) for row in rows]


@pytest.mark.parametrize("field", ["user", "item", "kind", "city", "tags"])
def test_a_row_has_what_its_side_tables_say(field: str, dataset: Dataset, rows: list[Row]) -> None:
    vocabulary = pl.read_parquet(dataset.folder / "vocabulary.parquet").filter(pl.col("field") == field)
    of = dict(vocabulary.select("value", "id").iter_rows())
    train = {text for row in rows[:140] for text in row[field].split("|") if text}
    assert set(of) == train
    expected = [[of[text] for text in row[field].split("|") if text in of] for row in rows]
    assert ids(dataset, field) == expected
    assert any(expected)


def test_numbers_and_crosses_of_side_tables_are_missing_where_they_are_absent(
    dataset: Dataset, rows: list[Row]
) -> None:
    assert [bool(one) for one in ids(dataset, "age")] == [bool(row["age"]) for row in rows]
    both = {(row["city"], row["kind"]) for row in rows[:140] if row["city"] and row["kind"]}
    assert [bool(one) for one in ids(dataset, "city_kind")] == [(row["city"], row["kind"]) in both for row in rows]


def test_a_history_is_what_the_user_clicked_before(dataset: Dataset, rows: list[Row]) -> None:
    item = [one[0] for one in ids(dataset, "item")]
    for at, past in enumerate(ids(dataset, "past")):
        mine = [b for b in range(at) if rows[at]["user"] and rows[b]["user"] == rows[at]["user"]]
        assert past == [item[b] for b in mine if rows[b]["clicked"] == "1"][-4:]


def test_rows_that_a_join_lost_or_doubled_are_counted(dataset: Dataset, rows: list[Row]) -> None:
    counts, users = dataset.facts["counts"], {row["id"] for row in read("users.tsv", "\t")}
    assert counts["items: rows"] == 12
    assert counts["items: rows after the first of their item_id"] == 1
    assert counts["samples whose item is not in items"] == sum(row["item"] == "i11" for row in rows)
    assert counts["samples whose user is not in users"] == sum(row["user"] not in {*users, ""} for row in rows)
    assert counts["samples without user"] == sum(not row["user"] for row in rows)


def test_an_unquoted_on_is_named_for_what_yaml_made_of_it(tmp_path: Path) -> None:
    broken = node()
    broken["source"]["joins"]["items"] = {"files": "items.csv", True: "item"}
    with pytest.raises(UserError, match='YAML reads an unquoted on as true: write "on"'):
        prepared(broken, data_dir=tmp_path)
