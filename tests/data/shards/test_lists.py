"""Multi-valued fields: every way to write a list says the same, and the ids are those of a plain twin."""

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tables import small

from fieldctr.data import encode, matrices
from fieldctr.data.budget import Limits
from fieldctr.data.dataset import Dataset
from fieldctr.data.describe import describe
from fieldctr.data.encode import encode_rows
from fieldctr.data.fields.kinds import FieldSpec, Spec
from fieldctr.data.fields.regroup import Regrouping, regrouped
from fieldctr.data.fields.specs import field_specs
from fieldctr.data.shards import lists, samples, writer
from fieldctr.data.shards.dictionary import Dictionary
from fieldctr.data.shards.reader import Reader
from fieldctr.data.table import EVENTS, LABEL, SPLIT, SPLITS, Table
from fieldctr.errors import UserError

TEXTS = ["a", "b", "ü", "long tag", "it's", 'a "b"', "c, d", "back\\slash", "x]y", "{z}", "7", "-1", "0.5"]
QUOTELESS = ["a", "b", "ü", "long tag", "7", "-1", "0.5", "1.0"]


def said(spec: FieldSpec, column: pl.Series) -> list[list[str]]:
    """The texts of the rows."""
    frame, dictionary = pl.DataFrame({spec.column: column}), Dictionary()
    cells = frame.select(lists.cells(spec, frame.schema).alias("cells"))["cells"]
    codes = lists.coded(spec, dictionary, cells).codes
    dictionary.see(codes.values)
    rest = iter(dictionary.texts().gather(codes.values).to_list())
    return [[next(rest) for _ in range(length)] for length in codes.lengths]


def field(**keys: Any) -> FieldSpec:
    (spec,) = field_specs({"m": {"kind": "multi", "max_length": 50} | keys}, 1)
    assert isinstance(spec, FieldSpec)
    return spec


def drawn(draw: random.Random, texts: list[str], rows: int = 60) -> list[list[str]]:
    return [draw.sample(texts, draw.randrange(len(texts))) for _ in range(rows)]


PRINTED: dict[str, Callable[[list[str]], str]] = {
    "python": str,
    "json": json.dumps,
    "json with letters": lambda row: json.dumps(row, ensure_ascii=False),
    "a tuple": lambda row: str(tuple(row)),
    "blanks": lambda row: f"  {row}\n",
    "close": lambda row: json.dumps(row, separators=(",", ":")),
}


@pytest.mark.parametrize("name", PRINTED)
@pytest.mark.parametrize("separator", [",", " ", "|", "::"])
def test_a_printed_list_is_the_list(name: str, separator: str) -> None:
    rows = drawn(random.Random(1), TEXTS)
    printed = pl.Series([PRINTED[name](row) for row in rows])
    if name == "a tuple":
        rows = [row for row in rows if row]  # () holds no comma
        printed = printed.filter(printed != "()")
    assert said(field(separator=separator), printed) == rows
    assert said(field(), pl.Series(rows)) == rows


@pytest.mark.parametrize(
    "write",
    [
        lambda row: "[" + ",".join(row) + "]",
        lambda row: "[ " + " , ".join(row) + " ]",
        lambda row: "{" + ", ".join(row) + "}",
        ",".join,
    ],
)
def test_lists_without_quotes_are_cut_at_commas(write: Callable[[list[str]], str]) -> None:
    rows = drawn(random.Random(2), QUOTELESS)
    expected = [["1" if text == "1.0" else text for text in row] for row in rows]
    assert said(field(), pl.Series([write(row) for row in rows])) == expected


@pytest.mark.parametrize("kind", [np.int64, np.float64, np.str_])
def test_what_numpy_prints_is_a_list(kind: type) -> None:
    draw = random.Random(3)
    rows = [[str(draw.randrange(10**6)) for _ in range(draw.randrange(30))] for _ in range(40)]
    printed = pl.Series([str(np.array(row, kind)) for row in rows])  # long ones over several lines
    assert any("\n" in text for text in printed)
    expected = [list(dict.fromkeys(row)) for row in rows]
    assert said(field(separator=" "), printed) == expected


def test_texts_that_print_no_list_are_taken_as_they_are() -> None:
    cells = {
        "[a], [b]": ["[a]", "[b]"],
        "(live)": ["(live)"],
        "(live), (studio)": ["(live)", "(studio)"],
        "rock (live), pop": ["rock (live)", "pop"],
        "{k: v}": ["{k: v}"],
        "'a', \"b\"": ["'a'", '"b"'],
        "[a": ["[a"],
        "[]": [],
        "[ ]": [],
        "['']": [],
        "": [],
        "a,,b, ": ["a", "b"],
        "[a]": ["a"],
    }
    assert said(field(), pl.Series(list(cells))) == list(cells.values())
    assert said(field(), pl.Series([None, *cells])) == [[], *cells.values()]
    assert said(field(separator="|"), pl.Series(["(no genres listed)", "a|(b)"])) == [
        ["(no genres listed)"],
        ["a", "(b)"],
    ]


@pytest.mark.parametrize("cell", ["[[1, 2], [3]]", "[(1, 2)]", '[{"id": 3, "name": "x"}]', "[ ['a'] ]"])
def test_lists_of_lists_are_refused(cell: str) -> None:
    with pytest.raises(UserError, match=r"field 'm': column 'm' holds \[.*a list of lists or of objects"):
        said(field(), pl.Series(["a", cell]))


def test_typed_lists_are_spelled_as_their_texts() -> None:
    cases: list[tuple[pl.Series, list[list[str]]]] = [
        (pl.Series([[1, None, 2], [], None], dtype=pl.List(pl.Int32)), [["1", "2"], [], []]),
        (pl.Series([[1.0, 0.5], [float("nan"), -0.0]]), [["1", "0.5"], ["0"]]),
        (pl.Series([[True, False], [None]], dtype=pl.List(pl.Boolean)), [["true", "false"], []]),
        (pl.Series([["a", "b"], ["b", "a"]], dtype=pl.Array(pl.String, 2)), [["a", "b"], ["b", "a"]]),
        (pl.Series([[1, 2], None], dtype=pl.Array(pl.Int8, 2)), [["1", "2"], []]),
        (pl.Series([["a", "c, d"], [" b "]], dtype=pl.List(pl.Categorical)), [["a", "c, d"], ["b"]]),
        (pl.Series([[], []], dtype=pl.List(pl.Null)), [[], []]),
        (pl.Series([3, None]), [["3"], []]),
        (pl.Series([None, None], dtype=pl.Null), [[], []]),
    ]
    for column, expected in cases:
        assert said(field(), column) == expected, column.dtype


@pytest.mark.parametrize(
    "dtype", [pl.List(pl.List(pl.Int8)), pl.Array(pl.Array(pl.Int8, 2), 2), pl.Struct({"a": pl.Int8}), pl.Binary()]
)
def test_what_is_no_list_of_plain_values_is_refused(dtype: pl.DataType) -> None:
    with pytest.raises(UserError, match=r"field 'm': column 'm' holds .*lists of plain values"):
        lists.cells(field(), {"m": dtype})


@pytest.mark.parametrize(
    "kind", [{}, {"kind": "value"}, {"kind": "cross", "columns": ["k", "m"]}, {"kind": "datetime"}]
)
@pytest.mark.parametrize("dtype", [pl.List(pl.Int8), pl.Array(pl.Int8, 2)])
def test_a_list_needs_a_field_of_kind_multi(kind: dict[str, Any], dtype: pl.DataType) -> None:
    reader = Reader.of(field_specs({"m": kind}, 1))
    with pytest.raises(UserError, match="A list needs kind: multi"):
        next(reader.chunks(pl.LazyFrame(schema={"m": dtype, "k": pl.Int8}), {}))


# ---- whole tables against a plain twin ----

Row = dict[str, Any]
FIELDS: dict[str, dict[str, Any]] = {
    "item": {},
    "tags": {"kind": "multi", "separator": "|", "max_length": 3, "padding": [0, "none"]},
    "late": {"kind": "multi", "column": "tags", "separator": "|", "max_length": 2, "keep": "last"},
    "past": {"kind": "multi", "column": "log", "max_length": 4, "shares": "item", "min_count": 2, "padding": [-1]},
    "head": {"kind": "multi", "column": "log", "max_length": 2, "shares": "item", "keep": "first"},
    "all": {"kind": "multi", "columns": "c_*", "max_length": 9, "padding": [""]},
    "seen": {"kind": "multi", "columns": ["c_2", "c_1"], "max_length": 1, "shares": "item"},
    "hash": {"kind": "multi", "column": "list", "max_length": 5, "num_buckets": 7},
    "last": {"column": "c_1", "shares": "item", "missing": "i3"},
}
DERIVED: dict[str, dict[str, Any]] = {
    "rate": {"kind": "target_mean", "of": ["item", "tags"], "folds": 2},
    "often": {"kind": "count", "of": ["past"]},
}


def random_rows(seed: int, count: int = 160) -> list[Row]:
    draw = random.Random(seed)

    def some(texts: list[Any], most: int) -> list[Any]:
        return [draw.choice(texts) for _ in range(draw.randrange(most + 1))]

    def row(i: int) -> Row:
        split = EVENTS if i % 17 == 3 and i > 20 else SPLITS[min(2, i % 5)] if i > 20 else "train"
        items = [f"i{k}" for k in range(6 if split == "train" else 9)]
        return {
            "item": draw.choice([None, *items]),
            "tags": draw.choice([None, "", "|".join(some(["a", " b", "none", "0", "0.0", "3.0", "3", "", "ü"], 7))]),
            "log": draw.choice([str, json.dumps, ",".join])(some([*items, "-1", ""], 9)),
            "c_2": draw.choice([None, "", " ", *items]),
            "c_1": draw.choice([None, *items]),
            "c_9": draw.choice([None, "z"]),
            "list": draw.choice([None, some([1, 2, 3, None, 40, 500], 8)]),
            "label": i % 2,
            "split": split,
        }

    return [row(i) for i in range(count)]


def frame_of(rows: list[Row]) -> pl.LazyFrame:
    return pl.LazyFrame(rows, schema_overrides={"list": pl.List(pl.Int64)}, infer_schema_length=None)


def cells_of(name: str, row: Row) -> list[Any]:
    """The raw values of a row in a field, as the one that wrote the row meant them."""
    if name in ("tags", "late"):
        return (row["tags"] or "").split("|")
    if name in ("past", "head"):
        log = row["log"]
        return json.loads(log.replace("'", '"')) if log.startswith("[") else log.split(",")
    if name == "hash":
        return row["list"] or []
    columns = {"all": ("c_2", "c_1", "c_9"), "seen": ("c_2", "c_1"), "item": ("item",), "last": ("c_1",)}
    return [row[column] for column in columns[name]]


def texts_of(spec: FieldSpec, row: Row) -> tuple[list[str], int]:
    """The texts of a row, and how many were cut."""
    texts = ["" if raw is None else str(raw).strip() for raw in cells_of(spec.name, row)]
    texts = [text.removesuffix(".0") for text in texts]
    padding = {"tags": ("0", "none"), "past": ("-1",), "last": ("i3",)}.get(spec.name, ())
    texts = [text for text in texts if text and text not in padding]
    if not spec.shares:
        texts = list(dict.fromkeys(texts))
    last = spec.keep == "last"
    kept = texts[-spec.width :] if last else texts[: spec.width]
    return kept, len(texts) - len(kept)


def ids_of(spec: FieldSpec, rows: list[Row]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    family = [one for one in plain_specs() if (one.shares or one.name) == (spec.shares or spec.name)]
    for one in family:
        own = Counter(text for row in rows if row["split"] == "train" for text in texts_of(one, row)[0])
        counts.update({text: count for text, count in own.items() if count >= one.min_count})
    ordered = sorted(counts, key=lambda text: (-counts[text], text.encode()))
    return {text: i for i, text in enumerate(ordered, 1)}


def specs_of(**more: Any) -> tuple[Spec, ...]:
    return field_specs(FIELDS | more, 1)


def plain_specs() -> list[FieldSpec]:
    return [spec for spec in specs_of() if isinstance(spec, FieldSpec)]


def made(rows: list[Row], folder: Path, limits: Limits | None = None, **more: Any) -> Dataset:
    """All fields, those in `more` besides, in a folder of their own."""
    folder.mkdir()
    encode.encode(Table.named(frame_of(rows)), specs_of(**more), folder, group="item", limits=limits)
    return Dataset.load(folder, name="t")


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("seed", range(6))
def test_ids_and_counts_are_those_of_the_plain_twin(seed: int, tmp_path: Path) -> None:
    rows = random_rows(seed)
    dataset = made(rows, tmp_path / "t")
    for number, spec in enumerate(plain_specs()):
        start = dataset.schema.column_offsets[number]
        facts, known = dataset.facts["fields"][spec.name], ids_of(spec, rows)
        assert spec.name == "hash" or dataset.schema.fields[number].vocab_size == len(known) + 1
        for split in SPLITS:
            mine = [texts_of(spec, row) for row in rows if row["split"] == split]
            found = getattr(dataset, split).ids[:, start : start + spec.width]
            if spec.name == "hash":
                assert (found > 0).sum(1).tolist() == [len(texts) for texts, _ in mine]
            else:
                ids = [[known[text] for text in texts if text in known] for texts, _ in mine]
                assert found.tolist() == [row + [0] * (spec.width - len(row)) for row in ids]
            assert facts["missing"][split] == pytest.approx(sum(not texts for texts, _ in mine) / len(mine))
            values = sum(len(texts) for texts, _ in mine)
            if spec.name != "hash":
                unseen = sum(text not in known for texts, _ in mine for text in texts)
                assert facts["unseen"][split] == pytest.approx(unseen / max(values, 1))
            lost = [more for _, more in mine if more]
            cut = facts.get("cut", {"values": {split: 0}, "rows": {split: 0}, "share": {split: 0.0}})
            assert (cut["values"][split], cut["rows"][split]) == (sum(lost), len(lost))
            assert cut["share"][split] == pytest.approx(sum(lost) / max(sum(lost) + values, 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    "limits", [small(16), small(16, chunk_rows=4, shard_rows=32), Limits(8, text_bytes=1, block_rows=16)]
)
@pytest.mark.parametrize("seed", [7, 8])
def test_shards_chunks_and_pieces_change_no_byte(
    seed: int, limits: Limits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = random_rows(seed)
    whole = files_of(made(rows, tmp_path / "whole").folder)
    monkeypatch.setattr(lists, "LEAST", 5)
    monkeypatch.setattr(lists, "TYPICAL", 1)
    monkeypatch.setattr(matrices, "PIECE_IDS", 100)
    many = made(rows, tmp_path / "many", limits)
    assert files_of(many.folder) == whole


@pytest.mark.parametrize("seed", [9, 10])
def test_new_rows_get_the_ids_of_the_old_ones(seed: int, tmp_path: Path) -> None:
    rows = random_rows(seed)
    dataset = made(rows, tmp_path / "t", **DERIVED)
    for split in ("valid", "test"):
        own = frame_of([row for row in rows if row["split"] == split])
        mixed = own.select("split", "list", "c_1", "c_9", "c_2", "tags", "log", "item", pl.lit("no").alias("c_3"))
        again, expected = encode_rows(mixed, dataset.folder).split, getattr(dataset, split)
        assert np.array_equal(again.ids, expected.ids)
        assert again.values is not None
        np.testing.assert_array_equal(again.values, expected.values)


def test_a_statistic_of_lists_is_the_mean_over_the_values_of_a_row(tmp_path: Path) -> None:
    rows = random_rows(11)
    dataset = made(rows, tmp_path / "t", **DERIVED)
    scale = json.loads((dataset.folder / "encoding.json").read_text())["scales"]
    train = [row for row in rows if row["split"] == "train"]
    specs = {spec.name: spec for spec in plain_specs()}
    texts = {name: lambda row, name=name: texts_of(specs[name], row)[0] for name in ("item", "tags", "past")}
    seen, clicks = Counter[Any](), Counter[Any]()
    for row in train:
        keys = [(item, tag) for item in texts["item"](row) for tag in texts["tags"](row)]
        for key in [*keys, *texts["past"](row)]:
            seen[key] += 1
            clicks[key] += row["label"]
    rate = sum(row["label"] for row in train) / len(train)
    for row, found in zip((row for row in rows if row["split"] == "test"), dataset.test.values, strict=True):
        keys = [(item, tag) for item in texts["item"](row) for tag in texts["tags"](row)]
        rates = [(clicks[key] + 20 * rate) / (seen[key] + 20) for key in keys]
        counts = [np.log1p(seen[key]) for key in texts["past"](row)]
        for value, own, numbers in zip(found, scale[-2:], (rates, counts), strict=True):
            mean = np.mean(numbers) if numbers else None
            assert value == pytest.approx(0.0 if mean is None else (mean - own["mean"]) / own["sd"], abs=1e-4)


def test_only_a_field_that_loses_values_says_so(tmp_path: Path) -> None:
    dataset = made(random_rows(12), tmp_path / "t")
    text = describe(dataset)
    lost = {name for name, facts in dataset.facts["fields"].items() if "cut" in facts}
    assert {"tags", "past", "seen"} <= lost
    assert not lost & {"item", "last", "all"}
    lines = [line for line in text.splitlines() if "more than max_length" in line]
    assert [line.partition(":")[0] for line in lines] == [
        f"field '{spec.name}'" for spec in plain_specs() if spec.name in lost
    ]
    cut = dataset.facts["fields"]["past"]["cut"]
    assert f"field 'past': {sum(cut['values'].values())} values of {sum(cut['rows'].values())} rows" in text


# ---- what it costs ----


def test_work_grows_with_the_values_and_not_with_the_width(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The texts that are coded, the columns that polars makes, and what lies on disk between the passes."""
    draw, cells, sizes = random.Random(1), Counter[int](), {}
    rows = [" ".join(str(draw.randrange(50)) for _ in range(draw.randrange(1, 9))) for _ in range(300)]
    frame = pl.LazyFrame(
        {"m": rows, LABEL: [0, 1] * 150, SPLIT: ["train", "train", "valid", "valid", "test", "test"] * 50}
    )
    real = Dictionary.code
    for width in (10, 2000):
        monkeypatch.setattr(
            Dictionary, "code", lambda self, texts, w=width: cells.update({w: len(texts)}) or real(self, texts)
        )
        specs = field_specs({"m": {"kind": "multi", "separator": " ", "max_length": width}}, 1)
        reader = Reader.of(specs)
        assert next(reader.chunks(frame, {})).texts.width == 1
        assert reader.num_columns <= lists.TYPICAL
        extra = samples.row_columns(frame.collect_schema(), None, None)
        writer.write_shards(reader, frame, extra, tmp_path / str(width), first=0, limits=Limits())
        sizes[width] = sum(path.stat().st_size for path in (tmp_path / str(width)).glob("*/*"))
    assert cells[10] == cells[2000] == sum(len(row.split()) for row in rows)
    assert abs(sizes[10] - sizes[2000]) < 100


# ---- keys ----


def test_a_history_keeps_the_newest_unless_told_otherwise() -> None:
    kept = {spec.name: spec.keep for spec in plain_specs()}
    assert kept["past"] == kept["seen"] == "last"
    assert kept["tags"] == kept["head"] == "first"
    assert kept["late"] == "last"


def test_columns_are_named_or_matched_in_the_order_of_the_file(tmp_path: Path) -> None:
    table = ["fieldctr:label", "g_2", "g_1", "g_[12]", "other"]
    cases = {
        "g_?": ("g_2", "g_1"),
        "g_[12]": ("g_[12]",),  # a name that exists
        "*": ("g_2", "g_1", "g_[12]", "other"),  # not the program's own
        ("other", "g_*"): ("other", "g_2", "g_1", "g_[12]"),
        ("g_1", "g_*"): ("g_1", "g_2", "g_[12]"),
    }
    for given, expected in cases.items():
        spec = field(columns=given if isinstance(given, str) else list(given))
        (found,) = lists.resolved([spec], table)
        assert isinstance(found, FieldSpec)
        assert (found.columns, found.column) == (expected, expected[0])
        assert found == replace(spec, columns=found.columns, column=found.column)
    with pytest.raises(UserError, match=r"fields\.m\.columns: no column is called or matches 'h_\*'.*All: .*g_2"):
        lists.resolved([field(columns="h_*")], table)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"columns": []}, "m.columns is empty"),
        ({"columns": "a*", "column": "a"}, "columns and column"),
        ({"columns": ["a"], "separator": "|"}, "columns and separator"),
        ({"columns": True}, "m.columns: true is no name"),
        ({"padding": 0}, "m.padding=0"),
        ({"keep": "newest"}, "m.keep=newest"),
        ({"missing": "0"}, "no key 'dataset.fields.m.missing' for kind multi"),
    ],
)
def test_a_wrong_key_is_named(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as error:
        field(**keys)
    assert words in str(error.value)


def test_columns_hold_plain_values() -> None:
    with pytest.raises(UserError, match=r"column 'b' holds List.*Each of `columns`"):
        lists.cells(field(columns=["a", "b"]), {"a": pl.Int8(), "b": pl.List(pl.Int8)})


@pytest.mark.parametrize("raw", [[0, 1.0, -1, True, "0"], ["0.0", "1", " -1 ", "true"]])
def test_padding_is_spelled_as_values_are(raw: list[Any]) -> None:
    spec = field(padding=raw)
    assert set(spec.padding) == {"0", "1", "-1", "true"}
    assert said(spec, pl.Series(["0,-1,2", "1.0,true,-1.0"])) == [["2"], []]
    assert said(spec, pl.Series([[0, -1, 2], [1]])) == [["2"], []]


@pytest.mark.parametrize("change", ["merge", "split", "shuffle"])
def test_fields_of_one_table_stay_together_in_another_schema(change: Any, tmp_path: Path) -> None:
    fields = {"item": {}, "last": {"shares": "item"}, "hour": {}, "user": {}}
    specs = field_specs(fields, 1)
    draw = random.Random(5)
    rows = [{name: draw.randrange(9) for name in fields} | {"label": i % 2, "split": SPLITS[i % 3]} for i in range(90)]
    for seed in range(4):
        after = regrouped(specs, Regrouping(change, None, 2, seed))
        folder = tmp_path / f"{change}{seed}"
        folder.mkdir()
        encode.encode(Table.named(pl.LazyFrame(rows)), after, folder, group=None)
        schema = Dataset.load(folder, name="t").schema
        (sharer,) = (one for one in after if one.shares)
        owner = next(one for one in after if one.name == sharer.shares)
        assert isinstance(owner, FieldSpec)
        assert isinstance(sharer, FieldSpec)
        assert (owner.column, sharer.column) == ("item", "last")
        places = schema.index(owner.name), schema.index(sharer.name)
        assert len({schema.row_offsets[place] for place in places}) == 1
        again = encode_rows(pl.LazyFrame([row for row in rows if row["split"] == "test"]), folder).split
        assert np.array_equal(again.ids, Dataset.load(folder, name="t").test.ids)
    if change != "shuffle":
        for name in ("item", "last"):
            with pytest.raises(UserError, match=f"'{name}' has a history or another field in its table"):
                regrouped(specs, Regrouping(change, [name, "hour"], 2, 1))
