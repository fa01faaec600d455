"""What cannot be trained on is refused in a sentence that says where, what and how to go on."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tables import tidy_node

from fieldctr.data.encode import encode
from fieldctr.data.fields.kinds import FieldSpec
from fieldctr.data.fields.specs import field_specs
from fieldctr.data.prepare import prepared
from fieldctr.data.table import Table
from fieldctr.errors import UserError

HEALTHY = "user,item,price,click,part\n" + "".join(
    f"u{i % 3},i{i % 5},{i},{i % 2},{('train', 'valid', 'test')[i % 7 % 3]}\n" for i in range(40)
)


LISTS = {"user": {"kind": "multi"}, "item": {"kind": "multi"}}


def node(folder: Path, **changes: Any) -> dict[str, Any]:
    plain = tidy_node(folder, "log.csv", {"user": {}, "item": None}, split={"by": "column", "column": "part"})
    source = {key: value for key, value in changes.items() if key in plain["source"]}
    others = {key: value for key, value in changes.items() if key not in source}
    return plain | others | {"source": plain["source"] | source}


def refusal(folder: Path, text: str = HEALTHY, **changes: Any) -> str:
    (folder / "log.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        prepared(node(folder, **changes), data_dir=folder / "out")
    left = [path for path in (folder / "out").glob("*") if not path.name.startswith(".digests")]
    assert not left, "a refused preparation leaves nothing"
    assert len(str(caught.value)) < 400
    return str(caught.value)


def test_a_healthy_table_passes(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(HEALTHY)
    assert len(prepared(node(tmp_path), data_dir=tmp_path / "out").train) == HEALTHY.count(",train")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fields": {"usr": {}}}, ["'usr'", "Nearest: user"]),
        ({"fields": {"user": {"min_cuont": 2}}}, ["dataset.fields.user.min_cuont", "min_count"]),
        ({"fields": {"user": {"kind": "mulit"}}}, ["dataset.fields.user.kind=mulit", "multi"]),
        ({"fields": {"user": {"bins": 3}}}, ["dataset.fields.user.bins", "categorical"]),
        ({"fields": {"user": {"num_buckets": 0}}}, ["dataset.fields.user.num_buckets=0", "from 1 to"]),
        ({"fields": {"user": {"num_buckets": 9, "min_count": 2}}}, ["dataset.fields.user", "Drop one"]),
        ({"fields": {"age": {"kind": "quantile", "num_buckets": 9}}}, ["age.num_buckets", "for kind quantile"]),
        ({"fields": {"user": {"min_count": 0}}}, ["dataset.fields.user.min_count=0", ">= 1"]),
        ({"fields": {"user": 3}}, ["dataset.fields.user=3"]),
        ({"fields": {}}, ["dataset.fields is empty"]),
        ({"fields": {"user": {}, "again": {"column": "user"}}}, ["'user'", "'again'"]),
        ({"fields": {"user": {"kind": "value"}}}, ["log.csv", "u0"]),
        ({"fields": {"price": {"kind": "datetime", "unit": "weeks"}}}, ["unit=weeks", "iso"]),
        ({"fields": {"user": {}, "r": {"kind": "target_mean"}}}, ["dataset.fields.r.of=null", "list of str"]),
        ({"fields": {"r": {"kind": "target_mean", "of": "user"}}}, ["dataset.fields.r.of=user", "list of str"]),
        ({"fields": {"r": {"kind": "target_mean", "of": []}}}, ["dataset.fields.r.of=[]", "one or more"]),
        ({"fields": {"r": {"kind": "count", "of": ["user", "user"]}}}, ["dataset.fields.r.of", "each once"]),
        ({"fields": {"r": {"kind": "count", "of": ["usr"]}}}, ["'usr'", "Nearest: user"]),
        ({"fields": {"r": {"kind": "count", "of": ["r"]}}}, ["'r' is a field of kind count", "categorical"]),
        ({"fields": {"r": {"kind": "target_mean", "of": ["user"], "time": "prise"}}}, ["'prise'", "Nearest: price"]),
        ({"fields": {"r": {"kind": "target_mean", "of": ["user"], "fold": 3}}}, ["fields.r.fold'", "Nearest: folds"]),
        ({"fields": {"r": {"kind": "target_mean", "of": ["user"], "folds": 1}}}, ["folds=1", "from 2 to 255"]),
        ({"fields": {"r": {"kind": "count", "of": ["user"], "smoothing": 3}}}, ["fields.r.smoothing", "kind count"]),
        ({"fields": {"r": {"kind": "count", "of": ["user"], "column": "user"}}}, ["fields.r.column", "kind count"]),
        (
            {"fields": {"price": {"kind": "quantile"}, "r": {"kind": "count", "of": ["price"]}}},
            ["'price' is a field of kind quantile", "log_square"],
        ),
        (
            {"fields": {**LISTS, "r": {"kind": "count", "of": ["user", "item"]}}},
            ["fields.r.of", "at most one", "multi"],
        ),
        (
            {"fields": {a: {"kind": "count", "of": ["user", "item"]} for a in "ab"}},
            ["'a'", "'b'", "user x item"],
        ),
        ({"group": "usr"}, ["'usr'", "Nearest: user"]),
        ({"label": {"column": "clik"}}, ["label.column=clik", "Nearest: click"]),
        ({"label": {"colum": "click"}}, ["label.colum", "Nearest: column"]),
        ({"label": {"column": "price"}}, ["not binary", "found 2, 3"]),
        ({"label": {"column": "user", "positive": ["nobody"]}}, ["constant", "train", "all 0"]),
        ({"split": {"by": "user"}}, ["split.by=user", "column | time"]),
        ({"split": {"by": "column", "column": "item"}}, ["i0", "train, valid, test"]),
        ({"split": {"by": "column", "column": "part", "values": {"test": "train"}}}, ["split 'test' is empty"]),
        ({"split": {"by": "random", "seed": 1}}, ["split.fractions", "missing"]),
        ({"split": {"by": "random", "seed": 1, "fractions": [0.5, 0.6, -0.1]}}, ["split.fractions"]),
        ({"split": {"by": "time", "column": "price", "cuts": [3]}}, ["split.cuts"]),
        ({"split": {"by": "time", "column": "price", "cutz": [3]}}, ["split.cutz", "Nearest: cuts"]),
        ({"separator": ";"}, ["separator ';'", "user,item"]),
        ({"files": "lag.csv"}, ["no file lag.csv", "Nearest: log.csv"]),
        ({"files": "clicks.parquet"}, ["no file clicks.parquet", "FIELDCTR_DATA", "dataset=synthetic"]),
        ({"files": ""}, ["dataset.source.files"]),
        ({"min_cont": 3}, ["dataset.min_cont", "Nearest: min_count"]),
    ],
)
def test_a_mistake_is_named(changes: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    message = refusal(tmp_path, **changes)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("u1,i1,3,1,train,extra", ["line 42", "6 columns, expected 5"]),
        ("u1,i1,3", ["line 42", "3 columns, expected 5"]),
        ('u1,"i,1",3,1,train\nu1,"i""1",3,1', ["line 43", "4 columns, expected 5"]),
        ("", ["line 42", "0 columns, expected 5"]),
        ("u1,i1,3,,train", ["a blank"]),
        ("u1,i1,3,1,", ["a blank, 'test'"]),
    ],
)
def test_a_bad_line_is_named(line: str, words: list[str], tmp_path: Path) -> None:
    message = refusal(tmp_path, HEALTHY + line + "\n" + HEALTHY.split("\n", 1)[1])
    assert all(word in message for word in words), message


def test_quotes_with_separators_and_line_ends_are_no_bad_lines(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(HEALTHY + 'u1,"a,""b""\nc",3,1,train')  # no line end at the end
    dataset = prepared(node(tmp_path), data_dir=tmp_path / "out")
    assert 'a,"b"\nc' in pl.read_parquet(dataset.folder / "vocabulary.parquet")["value"].to_list()


@pytest.mark.parametrize("content", [b"", b"\n", b"PAR1 no parquet", b"a,b\n1,\xff\xfe\xff\n"])
def test_files_that_are_no_tables_are_refused(content: bytes, tmp_path: Path) -> None:
    for name in ("log.csv", "log.parquet"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match="log"):
            prepared(node(tmp_path, files=name, fields={"a": {}}), data_dir=tmp_path / "out")


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    assert "two columns are called 'user'" in refusal(tmp_path, HEALTHY.replace("item", "user", 1))


def test_two_fields_of_one_name_are_refused(tmp_path: Path) -> None:
    frame = pl.LazyFrame({"a": ["x"], "b": ["y"], "label": [1], "split": ["train"]})
    with pytest.raises(UserError, match="'a' is given 2 times"):
        encode(Table.named(frame), (FieldSpec("a", "a"), FieldSpec("a", "b")), tmp_path, group=None)


def test_a_list_needs_the_kind_multi(tmp_path: Path) -> None:
    frame = pl.LazyFrame({"a": [["x"]], "label": [1], "split": ["train"]})
    with pytest.raises(UserError, match="kind: multi"):
        encode(Table.named(frame), field_specs({"a": {}}, 1), tmp_path, group=None)
