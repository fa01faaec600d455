"""What a language model is given to read: every known value of its field, and rows as the table has them."""

from pathlib import Path

import polars as pl
from tables import tidy_node

from fieldctr.data.dataset import Dataset
from fieldctr.data.prepare import prepared
from fieldctr.data.values import field_values, num_distinct, row_texts


def tidy(folder: Path) -> Dataset:
    """Ten rows, all but two of them train: a text field, a list field, a number."""
    table = pl.DataFrame(
        {
            "town": ["Ulm", "Bonn"] * 5,
            "tags": ["a b", "c", "", "a", "b c", "a b", "c", "a", "b", "c"],
            "price": [1.5, 2.5] * 5,
            "label": [0, 1, 1, 0, 1, 0, 0, 1, 0, 1],
            "split": ["train"] * 6 + ["valid"] * 2 + ["test"] * 2,
        }
    )
    table.write_csv(folder / "rows.csv")
    fields = {
        "town": {"text": "home town"},
        "tags": {"kind": "multi", "separator": " ", "max_length": 2},
        "price": {"kind": "value", "scale": "none"},
    }
    own = {"label": {"column": "label"}, "split": {"by": "column", "column": "split"}}
    return prepared(tidy_node(folder, "rows.csv", fields, **own), data_dir=folder / "data")


def test_values_are_those_of_train_with_their_counts(tmp_path: Path) -> None:
    town, tags, price = field_values(tidy(tmp_path).folder)
    assert dict(zip(town.texts, town.counts.tolist(), strict=True)) == {"Ulm": 3, "Bonn": 3}
    assert dict(zip(tags.texts, tags.counts.tolist(), strict=True)) == {"a": 3, "b": 3, "c": 2}
    assert price.texts == []


def test_rows_are_read_as_sentences(tmp_path: Path) -> None:
    dataset = tidy(tmp_path)
    rows = row_texts(dataset, field_values(dataset.folder), [0, 1, 2], count=200, seed=1)
    assert len(rows) == 200
    assert set(rows) == {
        "home town is Ulm; tags is a, b; price is 1.5",
        "home town is Bonn; tags is c; price is 2.5",
        "home town is Ulm; tags is unknown; price is 1.5",
        "home town is Bonn; tags is a; price is 2.5",
        "home town is Ulm; tags is b, c; price is 1.5",
        "home town is Bonn; tags is a, b; price is 2.5",
    }


def test_an_entity_is_read_by_its_own_fields_and_counted_once(tmp_path: Path) -> None:
    dataset = tidy(tmp_path)
    texts = row_texts(dataset, field_values(dataset.folder), [2, 0], count=50, seed=1)
    assert set(texts) == {"price is 1.5; home town is Ulm", "price is 2.5; home town is Bonn"}
    assert num_distinct(dataset, [0]) == 2
    assert num_distinct(dataset, [1, 0]) == 6  # all rows of train differ in town or tags
