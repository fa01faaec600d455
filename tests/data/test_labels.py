"""Which rows are clicks, and which split they are in: rules whose values mean what their writer meant."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from tables import tidy_node

from fieldctr.data.dataset import Dataset
from fieldctr.data.prepare import prepared
from fieldctr.errors import UserError

PARTS = ["train", "valid", "test", "train"] * 10
CLICKS = [0, 1, 1, 1, 0, 0, 0, 1] * 5


def table(folder: Path, frame: pl.DataFrame, source: str, fields: str = "{a: {}}", **more: Any) -> Dataset:
    """Prepared from a Parquet file by YAML as it would stand in a file."""
    frame.write_parquet(folder / "t.parquet")
    keys = {"split": {"by": "column", "column": "part"}} | yaml.safe_load(source)
    return prepared(tidy_node(folder, "t.parquet", yaml.safe_load(fields), **keys) | more, data_dir=folder / "out")


def frame(**columns: Any) -> pl.DataFrame:
    plain = {"a": [i % 3 for i in range(40)], "click": CLICKS, "part": PARTS}
    return pl.DataFrame(plain | columns, strict=False)


def clicks(dataset: Dataset) -> list[int]:
    order = [i for name in ("train", "valid", "test") for i, part in enumerate(PARTS) if part == name]
    found = [int(y) for split in (dataset.train, dataset.valid, dataset.test) for y in split.label]
    return [y for _, y in sorted(zip(order, found, strict=True))]


def as_texts(one: str, zero: str) -> list[str]:
    return [one if y else zero for y in CLICKS]


@pytest.mark.parametrize(
    ("column", "rule"),
    [
        (CLICKS, "{column: click}"),
        ([float(y) for y in CLICKS], "{column: click}"),
        ([bool(y) for y in CLICKS], "{column: click}"),
        (as_texts("1.0", "0"), "{column: click}"),
        (
            [("1", "1.0", "True")[i % 3] if y else ("0", "0.0", "false")[i % 3] for i, y in enumerate(CLICKS)],
            "{column: click}",
        ),
        (as_texts("yes", "no"), "{column: click, positive: [yes]}"),
        (as_texts("YES", "no"), "{column: click, positive: [Yes, YES]}"),
        (as_texts("off", "on"), "{column: click, positive: [off]}"),
        ([bool(y) for y in CLICKS], "{column: click, positive: [true]}"),
        ([("1", "1.0")[i % 2] if y else "2" for i, y in enumerate(CLICKS)], "{column: click, positive: [1]}"),
        (as_texts("1e-05", "1"), "{column: click, positive: [0.00001]}"),
        (as_texts("4.5", "3"), "{column: click, above: 3}"),
    ],
)
def test_a_rule_means_what_its_writer_meant(column: list, rule: str, tmp_path: Path) -> None:
    assert clicks(table(tmp_path, frame(click=column), f"label: {rule}")) == CLICKS


def test_a_rule_that_matches_nothing_stands_beside_the_values_of_its_column(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        table(tmp_path, frame(click=as_texts("clicked", "seen")), "label: {column: click, positive: [click]}")
    assert "all 0" in str(refused.value)
    assert "label: {column: click, positive: ['click']}" in str(refused.value)
    assert "'clicked' 20" in str(refused.value)
    assert "'seen' 20" in str(refused.value)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("{column: click, positive: [null]}", "Quote it"),
        ("{column: click, positive: yes}", "expected a list"),
        ("{column: click, above: x}", "label.above=x"),
        ("{column: click, above: 1, positive: [1]}", "one of them"),
        ("{column: clik}", "Nearest: click"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(rule: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        table(tmp_path, frame(), f"label: {rule}")


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ([part == "test" for part in PARTS], "{true: test, false: train}"),
        (["yes" if part == "test" else "no" for part in PARTS], "{yes: test, no: train}"),
        ([float(part == "test") for part in PARTS], "{1: test, 0: train}"),
        (["1.0" if part == "test" else "0.00" for part in PARTS], "{1: test, 0.0: train}"),
    ],
)
def test_values_of_a_split_are_spelled_as_cells_are(column: list, values: str, tmp_path: Path) -> None:
    split = f"{{by: column, column: part, values: {values}, valid_from_train: 0.4, seed: 1}}"
    dataset = table(tmp_path, frame(part=column), f"{{label: {{column: click}}, split: {split}}}")
    assert len(dataset.test) == PARTS.count("test")


@pytest.mark.parametrize(
    "name", ["label", "split", "drop", "pctr", "weight", "row number", "*", "^.*$", "", "text 0", "0"]
)
def test_a_column_of_any_name_is_a_column(name: str, tmp_path: Path) -> None:
    values = [f"v{i % 3}" for i in range(40)]
    made = table(
        tmp_path, frame(**{name: values}), "label: {column: click}", fields=yaml.safe_dump({"a": {}, name: {}})
    )
    words = pl.read_parquet(made.folder / "vocabulary.parquet").filter(pl.col("field") == name)["value"]
    assert sorted(words) == ["v0", "v1", "v2"]
    assert made.facts["rows"]["read"] == 40
    assert not made.facts["rows"]["dropped"]
    assert made.train.pctr is None
    assert clicks(made) == CLICKS


def test_a_name_of_the_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"fieldctr:label.*[Rr]ename"):
        table(tmp_path, frame(**{"fieldctr:label": CLICKS}), "label: {column: click}")


@pytest.mark.parametrize("fields", ["{true: {}}", "{1.5: {}}", "{null: {}}"])
def test_a_field_whose_name_yaml_took_for_something_else_is_named(fields: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Quote it"):
        table(tmp_path, frame(), "label: {column: click}", fields=fields)


@pytest.mark.parametrize("kind", ["{}", "{kind: value}", "{kind: log_square}", "{kind: multi}", "{kind: quantile}"])
def test_words_for_no_value_are_missing_and_counted_unless_a_key_says_otherwise(kind: str, tmp_path: Path) -> None:
    cells = [("nan", "3", "None", "5")[i % 4] for i in range(40)]
    made = table(tmp_path, frame(a=cells), "label: {column: click}", fields=f"{{a: {kind}}}")
    assert sum(made.facts["fields"]["a"]["null_words"].values()) == 20
    assert made.facts["fields"]["a"]["missing"] == {"train": 0.5, "valid": 0.0, "test": 1.0}
    if kind in ("{}", "{kind: multi}"):
        other = table(tmp_path, frame(a=cells), "label: {column: click}", fields=f"{{a: {kind}}}", null_words=False)
        assert "null_words" not in other.facts["fields"]["a"]
        assert other.schema.fields[0].vocab_size == made.schema.fields[0].vocab_size + 1, "None; nan is only in valid"


def test_an_unforeseen_error_is_a_sentence_and_keeps_its_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fieldctr.data.prepare.encode", lambda *_, **__: next(iter(())))
    with pytest.raises(UserError, match=r"dataset 'log' cannot be prepared: StopIteration.*--debug") as refused:
        table(tmp_path, frame(), "label: {column: click}")
    assert isinstance(refused.value.__cause__, StopIteration)
