"""Which files a name stands for, how they become one table, and the side tables that are joined to it."""

import os
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fieldctr.data.files import common, concat, find, folder_keys, scan_all
from fieldctr.data.joins import with_joins
from fieldctr.data.reading import Reading
from fieldctr.data.sources import tidy
from fieldctr.errors import UserError
from fieldctr.raw_files import digests

TABLE = pl.DataFrame({"user": ["a", "b", "", "1"], "item": [1, 2, 3, 4], "click": [0, 1, 0, 1]})


def place(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        TABLE.write_csv(folder / name)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("t[1].csv", ["t[1].csv"]),
        ("t[12].csv", ["t1.csv", "t2.csv"]),
        ("t?.csv", ["t1.csv", "t2.csv"]),
        ("*.csv", ["t1.csv", "t2.csv", "t[1].csv"]),
        ("part", ["part/a", "part/x=1/b"]),
        ("part/*", ["part/a", "part/x=1/b"]),
        ("**/b", ["part/x=1/b"]),
        ("./t1.csv", ["t1.csv"]),
    ],
)
@pytest.mark.parametrize("absolute", [False, True])
def test_a_name_is_a_file_a_folder_or_a_glob(pattern: str, found: list[str], absolute: bool, tmp_path: Path) -> None:
    folder = tmp_path / ("raw" if absolute else "raw[x]")
    place(folder, "t1.csv", "t2.csv", "t[1].csv", "part/a", "part/x=1/b", "part/_SUCCESS", "part/.a.crc", "part/_log/0")
    asked = str(folder / pattern) if absolute else pattern
    assert [str(path.relative_to(folder)) for path in find(folder, asked)] == found


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for pattern, words in {
        "absent.csv": "no file absent.csv in .*FIELDCTR_DATA",
        "pipes": "no file pipes in .* Nearest: pipe. It is your table.$",
        "absent*": r"no file absent\* in",
        "empty": "no file in the folder",
        "pipe": "pipe is a pipe. Write its rows to a file",
    }.items():
        with pytest.raises(UserError, match=f"(?s){words}"):
            find(tmp_path, pattern)


@pytest.mark.parametrize("write", ["write_csv", "write_parquet", "write_ndjson", "write_ipc"])
def test_folders_give_columns(write: str, tmp_path: Path) -> None:
    for day in ("0", "a%2Fb", "__HIVE_DEFAULT_PARTITION__"):
        (tmp_path / f"year=2024/day={day}").mkdir(parents=True)
        getattr(TABLE, write)(tmp_path / f"year=2024/day={day}/p")
    frame, _ = scan_all(find(tmp_path, "*/*/*"), Reading(), base=tmp_path)
    assert frame.collect()["day"].to_list() == ["0"] * 4 + [None] * 4 + ["a/b"] * 4
    assert set(frame.collect()["year"]) == {"2024"}


def test_a_key_of_a_folder_may_be_a_column_that_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "day=3").mkdir()
    TABLE.with_columns(day=3).write_parquet(tmp_path / "day=3/p")
    assert scan_all([tmp_path / "day=3/p"], Reading())[0].collect()["day"].to_list() == [3] * 4
    TABLE.with_columns(day=pl.Series([3, 3, 3, 4])).write_parquet(tmp_path / "day=3/p")
    with pytest.raises(UserError, match="day=3/p: column 'day' holds something else"):
        scan_all([tmp_path / "day=3/p"], Reading())


def test_folders_that_lead_to_some_files_only_are_no_columns(tmp_path: Path, capsys: Any) -> None:
    place(tmp_path, "day=1/a", "b")
    assert "day" not in scan_all(find(tmp_path, "**/*[ab]"), Reading(), base=tmp_path)[0].collect_schema()
    assert "day=" in capsys.readouterr().err
    assert folder_keys(tmp_path / "day=1" / "a", tmp_path / "day=1") == {}


def test_a_folders_key_is_part_of_the_digest(tmp_path: Path) -> None:
    place(tmp_path, "day=1/a")
    (first,) = digests((tmp_path / "day=1/a",), tmp_path / "memo")
    (tmp_path / "day=1").rename(tmp_path / "day=2")
    (second,) = digests((tmp_path / "day=2/a",), tmp_path / "memo")
    assert (first[0], second[0], first[1]) == ("day=1/a", "day=2/a", second[1])


INT = {8: pl.Int8(), 16: pl.Int16(), 32: pl.Int32(), 64: pl.Int64()}
UNSIGNED = {8: pl.UInt8(), 16: pl.UInt16(), 32: pl.UInt32(), 64: pl.UInt64()}


@pytest.mark.parametrize("one", [*INT.values(), *UNSIGNED.values()])
@pytest.mark.parametrize("other", [*INT.values(), *UNSIGNED.values()])
def test_whole_numbers_meet_where_each_survives(one: pl.DataType, other: pl.DataType) -> None:
    shared = common(one, other)
    assert shared is not None
    assert shared == common(other, one)
    for kind in (one, other):
        bounds = pl.select(low=kind.min(), high=kind.max())  # ty: ignore[unresolved-attribute]
        assert bounds.cast(shared).cast(pl.String).equals(bounds.cast(pl.String))


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        (pl.Float32(), pl.Float64(), pl.Float64()),
        (pl.Int64(), pl.Float64(), pl.String()),
        (pl.Categorical(), pl.String(), pl.String()),
        (pl.Enum(["a"]), pl.Categorical(), pl.String()),
        (pl.Null(), pl.Int8(), pl.Int8()),
        (pl.List(pl.Int32()), pl.Array(pl.Int64(), 3), pl.List(pl.Int64())),
        (pl.String(), pl.Int64(), None),
        (pl.Boolean(), pl.Int64(), None),
        (pl.Datetime("us"), pl.Datetime("us", "UTC"), None),
        (pl.List(pl.String()), pl.List(pl.Int8()), None),
    ],
)
def test_types_meet_without_loss_or_not_at_all(
    one: pl.DataType, other: pl.DataType, shared: pl.DataType | None
) -> None:
    assert common(one, other) == shared
    assert common(other, one) == shared


def test_parts_are_matched_by_name_and_a_wider_type_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    first = pl.LazyFrame({"a": pl.Series([1], dtype=pl.Int32), "*": ["x"]})
    second = pl.LazyFrame({"*": pl.Series(["y"], dtype=pl.Categorical), "a": [2**40]})
    joined = concat([(Path("p"), first), (Path("q"), second)]).collect()
    assert joined.to_dicts() == [{"a": 1, "*": "x"}, {"a": 2**40, "*": "y"}]
    assert "column 'a' is Int32 or Int64: read as Int64" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"a": ["x"], "b": [1]}, "q: column 'a' is String, and in p it is Int64"),
        ({"a": [1]}, "q lacks 'b'"),
        ({"a": [1], "b": [1], "c": [1]}, "q has 'c', which p lacks"),
        ({"a": [1], "c": [1]}, "q lacks 'b' and has 'c'"),
    ],
)
def test_parts_that_do_not_fit_are_named(other: dict[str, list[Any]], words: str) -> None:
    with pytest.raises(UserError, match=words):
        concat([(Path("p"), pl.LazyFrame({"a": [1], "b": [1]})), (Path("q"), pl.LazyFrame(other))])


@pytest.mark.parametrize("seed", range(5))
def test_a_join_is_the_first_row_of_the_key(seed: int, tmp_path: Path) -> None:
    """Against dictionaries; the key is written in another way than in the samples, or is blank."""
    draw = random.Random(seed)
    items = [(draw.choice(["", "1.0", "2", "3.00", "4"]), f"c{i}") for i in range(12)]
    samples = [draw.choice(["1", "2.0", "3", "", "9"]) for _ in range(60)]
    (tmp_path / "items.tsv").write_text("id\tcat\n" + "".join(f"{key}\t{cat}\n" for key, cat in items))
    frame = pl.LazyFrame({"item": samples, "row": range(60)})
    node = {"items": {"files": "items.tsv", "on": {"item": "id"}, "separator": "\t"}}
    joined = with_joins(frame, node, tmp_path, Reading())
    first: dict[str, str] = {}
    for key, cat in items:
        first.setdefault(key.removesuffix(".0").removesuffix(".00"), cat)
    plain = [key.removesuffix(".0") for key in samples]
    assert joined.frame.collect()["cat"].to_list() == [first.get(key) if key else None for key in plain]
    assert joined.frame.collect()["row"].to_list() == list(range(60))
    counts = {what: frame.collect().item() for what, frame in joined.counts.items()}
    told = [key for key, _ in items if key]
    assert counts == {
        "items: rows": 12,
        "items: rows without id": 12 - len(told),
        "items: rows after the first of their id": len(told) - len(first.keys() - {""}),
        "samples whose item is not in items": sum(bool(key) and key not in first for key in plain),
        "samples without item": samples.count(""),
    }
    assert list(joined.readings) == [tmp_path / "items.tsv"]


def test_joins_follow_each_other_on_several_columns(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item,maker\n1,m\n2,n\n")
    pl.DataFrame({"maker": ["m", "n"], "user": ["a", "b"], "*": [0.5, 0.25]}).write_parquet(tmp_path / "pairs")
    node = {"items": {"files": "items.csv", "on": "item"}, "pairs": {"files": "pairs", "on": ["user", "maker"]}}
    found = with_joins(TABLE.lazy(), node, tmp_path, Reading()).frame.collect()
    assert found["*"].to_list() == [0.5, 0.25, None, None]
    assert found.columns == ["user", "item", "click", "maker", "*"]


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"files": "items.csv"}, r"joins\.x: expected \{files"),
        ({"files": "items.csv", "on": "itme"}, r"joins\.x: on: no column 'itme' in the samples. Nearest: item"),
        ({"files": "items.csv", "on": {"item": "idd"}}, r"joins\.x: on: no column 'idd' in x. Nearest: id"),
        ({"files": "items.csv", "on": []}, r"on=\[\] is not allowed"),
        ({"files": "items.csv", "on": {"item": "id"}}, "the samples have a column 'user' too"),
        ({"files": "none.csv", "on": "item"}, r"joins\.x: no file none.csv"),
        ({"files": "items.csv", "on": "item", "sep": ";"}, r"joins\.x: no key 'sep'"),
    ],
)
def test_a_join_that_cannot_be_is_named(node: dict[str, Any], words: str, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("id,user\n1,m\n")
    with pytest.raises(UserError, match=words):
        with_joins(TABLE.lazy(), {"x": node}, tmp_path, Reading())


def test_a_tidy_table_knows_its_side_tables(tmp_path: Path) -> None:
    place(tmp_path, "t.csv")
    (tmp_path / "items.csv").write_text("item,when\n1,train\n2,valid\n3,test\n4,test\n")
    table = tidy.read(
        tmp_path, files="t.csv", origin="", separator=",", null_values=[], label={"column": "click"},
        split={"by": "column", "column": "when"}, joins={"items": {"files": "items.csv", "on": "item"}},
    )  # fmt: skip
    assert table.files == (tmp_path / "t.csv", tmp_path / "items.csv")
    assert set(table.readings) == set(table.files)
    assert table.frame.collect()["when"].to_list() == ["train", "valid", "test", "test"]


def test_new_rows_get_the_side_columns_that_they_lack(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item,cat,maker\n1,c,m\n2,d,n\n")
    node = {"items": {"files": "items.csv", "on": "item"}}
    half = TABLE.lazy().with_columns(cat=pl.lit("mine"))
    found = with_joins(half, node, tmp_path, Reading(), lacking=True).frame.collect()
    assert found.select("cat", "maker").rows() == [("mine", "m"), ("mine", "n"), ("mine", None), ("mine", None)]
    whole = half.with_columns(maker=pl.lit("x")).drop("item")
    assert with_joins(whole, node, tmp_path, Reading(), lacking=True).frame.collect().equals(whole.collect())


def test_what_the_quotes_of_a_table_mean_is_told_for_new_rows(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text('title\tclick\n27" mon\t1\n"whole"\t0\n')
    table = tidy.read(
        tmp_path, files="t.tsv", origin="", separator="\t", null_values=[], label={"column": "click"},
        split={"by": "random", "fractions": [0.6, 0.2, 0.2], "seed": 1},
    )  # fmt: skip
    assert table.facts == {"reading": {"quote": "none"}}
    assert table.frame.collect()["title"].to_list() == ['27" mon', '"whole"']
