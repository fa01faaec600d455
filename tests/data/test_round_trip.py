"""What training read, scoring reads the same: every source, every way to write a table, every type of a column."""

import gzip
import json
import random
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
from by_path import loaded
from tables import tidy_node

from fieldctr.config import build
from fieldctr.data.dataset import Dataset
from fieldctr.data.encode import encode_rows
from fieldctr.data.new_rows import NewRows
from fieldctr.data.prepare import SOURCE, new_table, prepared
from fieldctr.data.table import DROP, SPLIT

Node = dict[str, Any]


def neighbour(name: str) -> ModuleType:
    """A module of tests beside this one, for the files that it writes as publishers do."""
    return loaded(Path(__file__).parent / f"{name}.py")


RAW, MOVIELENS, AMAZON, BOARDS = map(
    neighbour, ("test_raw_formats", "sources/test_sources", "sources/test_amazon", "test_benchmarks")
)
LAYOUTS = {"csv": "ratings.csv", "100k": "u.data", "1m": "ratings.dat"}
MAIN = {  # the file of each source that has the samples
    "taobao": "raw_sample.csv",
    "taobao_behavior": "raw_sample.csv",
    "kuairand_pure": "log_random_4_22_to_5_08_pure.csv",
    "open_bandit": "random/all/all.csv",
    "movielens_20m": "ratings.csv",
}


def rows_of_test(node: Node) -> np.ndarray:
    """Which rows of the source's main file are samples of test."""
    frame = build(node["source"], "dataset.source", Path(node["raw_dir"]), kind=SOURCE).frame
    kept = pl.col(DROP).is_null() if DROP in frame.collect_schema() else pl.lit(True)
    return frame.select(((pl.col(SPLIT) == "test") & kept).alias("in")).collect()["in"].fill_null(False).to_numpy()


def scored(node: Node, dataset: Dataset, path: Path, **keys: Any) -> tuple[pl.DataFrame, Any]:
    table = new_table(node, dataset, NewRows(path, keys))
    return table.frame.collect(), encode_rows(table.frame, dataset.folder).split


def assert_as_test(dataset: Dataset, split: Any, rows: np.ndarray) -> None:
    own = split.take(np.flatnonzero(rows[: len(split)]))
    assert len(own) == len(dataset.test) > 0
    np.testing.assert_array_equal(own.ids_of(slice(None)), dataset.test.ids_of(slice(None)))
    if dataset.test.values is not None:
        np.testing.assert_array_equal(own.values, dataset.test.values)
    assert np.isnan(own.label).all(), "labels are not read"


def assert_round_trip(node: Node, path: Path, tmp_path: Path) -> None:
    """The file as its publisher wrote it, and the table that the source makes of it, give the ids of training."""
    dataset = prepared(node, data_dir=tmp_path / "out")
    rows = rows_of_test(node) if not isinstance(node["source"].get("files"), dict) else np.ones(10_000, bool)
    table, split = scored(node, dataset, path)
    assert_as_test(dataset, split, rows)
    table.write_parquet(tmp_path / "made.parquet")
    assert_as_test(dataset, scored(node, dataset, tmp_path / "made.parquet")[1], rows)
    elsewhere = {**node, "raw_dir": str(tmp_path / "nowhere")}
    assert_as_test(dataset, scored(elsewhere, dataset, tmp_path / "made.parquet")[1], rows)


@pytest.mark.parametrize("name", MAIN)
def test_a_source_scores_its_own_file(name: str, dataset_node: Callable[..., Node], tmp_path: Path) -> None:
    for file, content in RAW.SOURCES[name]().items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(content.encode() if isinstance(content, str) else content)
    node = dataset_node(name) | {"raw_dir": str(tmp_path), "published": None, "min_count": 1}
    assert_round_trip(node, tmp_path / MAIN[name], tmp_path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_movielens_scores_its_ratings(layout: str, tmp_path: Path) -> None:
    MOVIELENS.write_movielens(tmp_path, layout)
    split = {"by": "order", "column": "timestamp", "fractions": [0.4, 0.3, 0.3]}
    source = {"_target_": "fieldctr.data.sources.movielens.read", "layout": layout, "label": "ge4", "split": split}
    fields: Node = {"userId": {}, "movieId": {}, "year": {}, "genres": {"kind": "multi", "separator": "|"}}
    fields |= {name: {} for name in (("gender", "age", "occupation") if layout != "csv" else ())}
    node = {"name": "m", "raw_dir": str(tmp_path), "min_count": 1, "group": None, "fields": fields, "source": source}
    assert_round_trip(node, tmp_path / LAYOUTS[layout], tmp_path)


def test_amazon_scores_reviews(tmp_path: Path) -> None:
    reviews = [row | {"timestamp": row["timestamp"] + 100 * k} for k in range(10) for row in AMAZON.reviews()]
    AMAZON.write(tmp_path, "Gift_Cards", reviews)
    items = [{"parent_asin": f"B0{i}", "title": f"T{i}", "price": i, "categories": ["a", "b"]} for i in range(1, 4)]
    AMAZON.write(tmp_path, "meta_Gift_Cards", items)
    assert_round_trip(AMAZON.node(tmp_path), tmp_path / "Gift_Cards.jsonl.gz", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", BOARDS.HEADERS)
def test_a_file_for_each_split_is_scored(name: str, dataset_node: Callable[..., Node], tmp_path: Path) -> None:
    BOARDS.write(tmp_path, name)
    node = dataset_node(name) | {"raw_dir": str(tmp_path), "published": None}
    assert_round_trip(node, tmp_path / "test.csv", tmp_path)


def test_what_synthetic_draws_is_scored_from_a_file(dataset_node: Callable[..., Node], tmp_path: Path) -> None:
    node = dataset_node("synthetic", "dataset.source.rows=3000", "dataset.source.users=60", "dataset.source.ads=40")
    build(node["source"], "source", tmp_path, kind=SOURCE).frame.sink_parquet(tmp_path / "log.parquet")
    drawn = pl.read_parquet(tmp_path / "log.parquet")
    drawn.select(name for name in drawn.columns if ":" not in name).write_csv(tmp_path / "log.csv")
    dataset = prepared(node, data_dir=tmp_path / "out")
    assert_as_test(dataset, scored(node, dataset, tmp_path / "log.csv")[1], rows_of_test(node))


# ---- ways to write one table ----

FIELDS: Node = {
    "user": {},
    "code": {"missing": -1},
    "price": {"kind": "value"},
    "size": {"kind": "quantile", "bins": 4},
    "count": {"kind": "log_square"},
    "flag": {},
    "tags": {"kind": "multi", "separator": "|"},
    "hour": {"kind": "datetime", "column": "when", "part": "hour"},
    "pair": {"kind": "cross", "columns": ["user", "flag"]},
    "rate": {"kind": "target_mean", "of": ["user"]},
    "past": {"kind": "history", "of": "code", "by": "user", "time": "when", "max_length": 3},
}
TYPES: dict[str, Any] = {
    "code": pl.Int64, "price": pl.Float64, "size": pl.Float64, "count": pl.Int64, "flag": pl.Boolean,
    "when": pl.Int64, "click": pl.Int64, "ratio": pl.Float64,
}  # fmt: skip
COLUMNS = ["user", "code", "price", "size", "count", "flag", "tags", "when", "ratio", "click", "part"]


def random_table(seed: int, rows: int = 240) -> pl.DataFrame:
    """Texts as people write them: cells by type, blanks among them, numbers that are spelled in one way only."""
    draw = random.Random(seed)

    def some(make: Callable[[], Any], blanks: float = 0.1) -> list[Any]:
        return [None if draw.random() < blanks else make() for _ in range(rows)]

    when = [1_600_000_000 + 3600 * draw.randrange(2000) for _ in range(rows)]
    table = {
        "user": some(lambda: draw.choice(["u1", "é", "1", "007", "x y", 'say "x"', "a;b,c", "None ", "12e45678"])),
        "code": some(lambda: draw.randrange(-1, 9)),
        "price": some(lambda: draw.choice([0.1, 1e-05, 2.5, 1e7, -3.0, 1e20, draw.gauss(0, 1)])),
        "size": some(lambda: draw.choice([-0.0, 1.0, draw.random()])),
        "count": some(lambda: draw.randrange(0, 10 ** draw.randrange(1, 7))),
        "flag": some(lambda: draw.random() < 0.5),
        "tags": some(lambda: "|".join(draw.sample(["1", "2", "3.0", "b", "c"], draw.randrange(1, 4)))),
        "when": when,
        "ratio": [draw.choice([0.25, 1.0, 1e-3]) for _ in range(rows)],
        "click": [int(draw.random() < 0.4) for _ in range(rows)],
        "part": [("train", "train", "train", "valid", "test")[i % 5] for i in range(rows)],
    }
    return pl.DataFrame(table, schema={name: TYPES.get(name, pl.String) for name in COLUMNS})


def texts(frame: pl.DataFrame) -> pl.DataFrame:
    """As pandas writes a CSV: True, 1e-05, 1.0."""

    def cell(value: Any) -> str | None:
        return None if value is None else value if isinstance(value, str) else repr(value)

    return pl.DataFrame(
        {name: [cell(x) for x in frame[name].to_list()] for name in frame.columns},
        schema=dict.fromkeys(frame.columns, pl.String),
    )


def pythonic(frame: pl.DataFrame, path: Path) -> None:
    rows = ("".join([json.dumps({k: v for k, v in row.items() if v is not None}), "\n"]) for row in frame.to_dicts())
    path.write_text("".join(rows))


def typed(frame: pl.DataFrame) -> pl.DataFrame:
    kinds = {"user": pl.Categorical, "code": pl.Int16, "count": pl.UInt32, "part": pl.Enum(["train", "valid", "test"])}
    return frame.with_columns(pl.col(name).cast(kind) for name, kind in kinds.items()).with_columns(
        pl.col("ratio").cast(pl.Decimal(12, 6))
    )


WAYS: dict[str, tuple[Node, Callable[[pl.DataFrame, Path], object]]] = {
    "csv": ({}, lambda f, p: f.write_csv(p)),
    "texts as pandas writes them": ({}, lambda f, p: texts(f).write_csv(p)),
    "semicolons": ({"separator": ";"}, lambda f, p: f.write_csv(p, separator=";")),
    "tabs as typed": ({"separator": r"\t"}, lambda f, p: f.write_csv(p, separator="\t")),
    "wide separator": ({"separator": "::", "quote": "none"}, lambda f, p: p.write_text(
        "\n".join("::".join("" if x is None else str(x) for x in row) for row in [f.columns, *f.rows()]) + "\n")),
    "no header": ({"header": COLUMNS}, lambda f, p: f.write_csv(p, include_header=False)),
    "gzip": ({}, lambda f, p: p.write_bytes(gzip.compress(f.write_csv().encode()))),
    "zstd": ({}, lambda f, p: f.lazy().sink_csv(p, compression="zstd", check_extension=False)),
    "utf-16": ({"encoding": "utf-16"}, lambda f, p: p.write_bytes(f.write_csv().encode("utf-16"))),
    "latin-1": ({"encoding": "latin-1"}, lambda f, p: p.write_bytes(f.write_csv().encode("latin-1"))),
    "null values": ({"null_values": ["NULL", "nil"]}, lambda f, p: f.write_csv(p, null_value="nil")),
    "words for null": ({}, lambda f, p: f.write_csv(p, null_value="NULL")),
    "parquet of texts": ({}, lambda f, p: texts(f).write_parquet(p)),
    "parquet of types": ({}, lambda f, p: f.write_parquet(p)),
    "parquet of narrow types": ({}, lambda f, p: typed(f).write_parquet(p)),
    "arrow": ({}, lambda f, p: f.write_ipc(p)),
    "json lines": ({}, lambda f, p: f.write_ndjson(p)),
    "json lines of python": ({}, pythonic),
}  # fmt: skip


def tidy(folder: Path, file: str, **keys: Any) -> Node:
    split = {"by": "column", "column": "part"}
    return tidy_node(folder, file, FIELDS | {"ratio": {}}, split=split, **keys) | {"group": "user"}


def prepared_bytes(dataset: Dataset) -> dict[str, bytes]:
    files = [
        path for path in dataset.folder.iterdir() if path.suffix in (".npy", ".parquet") or path.name == "schema.json"
    ]
    return {path.name: path.read_bytes() for path in files}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("way", WAYS)
def test_the_same_rows_give_the_same_bytes_and_are_scored_alike(way: str, seed: int, tmp_path: Path) -> None:
    """Of a file without an ending: what it is, its bytes tell."""
    frame, (keys, write) = random_table(seed), WAYS[way]
    frame.write_csv(tmp_path / "plain.csv")
    plain = prepared(tidy(tmp_path, "plain.csv"), data_dir=tmp_path / "out")
    write(frame, tmp_path / "table")
    node = tidy(tmp_path, "table", **keys)
    dataset = prepared(node, data_dir=tmp_path / "out")
    expected, found = prepared_bytes(plain), prepared_bytes(dataset)
    assert [name for name in expected if expected[name] != found[name]] == []
    rows = (frame["part"] == "test").to_numpy()
    assert_as_test(dataset, scored(node, dataset, tmp_path / "table")[1], rows)
    assert_as_test(
        dataset,
        scored(node, dataset, tmp_path / "plain.csv", separator=",", header=None, encoding="utf-8", quote='"')[1],
        rows,
    )


@pytest.mark.parametrize("seed", range(3))
def test_decimals_booleans_and_categories_are_the_texts_of_a_csv(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    cents = [Decimal(draw.randrange(-500, 500)).scaleb(-2) for _ in range(200)]
    frame = pl.DataFrame(
        {"a": pl.Series(cents, dtype=pl.Decimal(9, 2)), "b": [draw.random() < 0.5 for _ in cents]}
    ).with_columns(c=pl.col("a").cast(pl.String).cast(pl.Categorical), d=pl.col("a").cast(pl.Float32))
    frame = frame.with_columns(click=pl.Series([i % 2 for i in range(200)]), part=random_table(seed, 200)["part"])
    fields: Node = {"a": {}, "b": {}, "c": {}, "d": {}, "e": {"kind": "value", "column": "a"}}
    made = []
    for name, write in (("t.csv", frame.write_csv), ("t.parquet", frame.write_parquet)):
        write(tmp_path / name)
        made.append(prepared(tidy(tmp_path, name) | {"fields": fields, "group": None}, data_dir=tmp_path / "out"))
    assert prepared_bytes(made[0]) == prepared_bytes(made[1])
