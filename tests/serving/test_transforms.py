"""What a bundle's scorer makes of raw rows is what `fieldctr predict` makes of them, for every kind of field."""

import cProfile
import json
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tables import tidy_node

from fieldctr.data.encode import encode_rows
from fieldctr.data.fields.kinds import HistorySpec
from fieldctr.data.fields.spelling import value_texts
from fieldctr.data.fields.times import moment
from fieldctr.data.new_rows import NewRows
from fieldctr.data.prepare import new_table, prepared
from fieldctr.data.shards.lists import LIST, NESTED, QUOTED
from fieldctr.errors import UserError
from fieldctr.serving import rules, scorer
from fieldctr.serving.scorer import Scorer
from fieldctr.serving.transforms import transforms

Rows = list[dict[str, Any]]
FIELDS: dict[str, Any] = {
    "user": {},
    "code": {"missing": -1},
    "words": {"column": "user", "null_words": False},
    "hashed": {"column": "user", "num_buckets": 5},
    "price": {"kind": "value"},
    "cost": {"kind": "value", "column": "price", "scale": "none"},
    "size": {"kind": "quantile", "bins": 4},
    "count": {"kind": "log_square"},
    "flag": {},
    "tags": {"kind": "multi", "separator": "|", "max_length": 2},
    "seen": {"kind": "multi", "shares": "code", "max_length": 2, "keep": "last"},
    "both": {"kind": "multi", "columns": ["code", "count"], "padding": ["0"], "min_count": 2},
    "picture": {"kind": "vector", "column": "code", "file": "pictures.parquet", "key": "key"},
    "hour": {"kind": "datetime", "column": "when", "part": "hour"},
    "weekend": {"kind": "datetime", "column": "day", "part": "is_weekend", "unit": "iso"},
    "month": {"kind": "datetime", "column": "date", "part": "month", "unit": "%d/%m/%Y"},
    "pair": {"kind": "cross", "columns": ["user", "flag"]},
    "rate": {"kind": "target_mean", "of": ["user"]},
    "shown": {"kind": "count", "of": ["tags", "hashed"], "bins": 4},
    "risen": {"kind": "target_mean", "of": ["pair", "ratio"], "smoothing": 0.0},
    "past": {"kind": "history", "of": "code", "by": "user", "time": "when", "max_length": 3},
    "before": {"kind": "history", "of": "code", "by": "hashed", "time": "day", "unit": "iso", "max_length": 2},
}


def table(seed: int, rows: int = 240) -> pl.DataFrame:
    """Cells as people write them, blanks among them."""
    draw = random.Random(seed)

    def some(make: Callable[[], Any]) -> list[Any]:
        return [None if draw.random() < 0.1 else make() for _ in range(rows)]

    day = [f"2020-0{draw.randrange(1, 10)}-{draw.randrange(10, 29)}T{draw.randrange(10, 24)}:30" for _ in range(rows)]
    zone = [draw.choice(["", "Z", "+02:00", ":15", ":15.250-0330"]) for _ in range(rows)]
    return pl.DataFrame(
        {
            "user": some(lambda: draw.choice(["u1", "é", "1", "007", "x y", 'say "x"', "a;b,c", "None", "12e45678"])),
            "code": some(lambda: draw.randrange(-1, 9)),
            "price": some(lambda: draw.choice([0.1, 1e-05, 2.5, 1e7, -3.0, 1e39, draw.gauss(0, 1)])),
            "size": some(lambda: draw.choice([-0.0, 1.0, draw.random()])),
            "count": some(lambda: draw.randrange(0, 10 ** draw.randrange(1, 7))),
            "flag": some(lambda: draw.random() < 0.5),
            "tags": some(lambda: printed(draw, [draw.choice(["1", "2", "3.0", "b", "NULL"]) for _ in range(3)])),
            "seen": some(lambda: [draw.randrange(9) for _ in range(draw.randrange(4))]),
            "when": [1_600_000_000 + 3600 * draw.randrange(2000) for _ in range(rows)],
            "day": [first + last for first, last in zip(day, zone, strict=True)],
            "date": some(lambda: f"{draw.randrange(1, 29)}/{draw.randrange(1, 13)}/2021"),
            "ratio": [draw.choice([0.25, 1.0, 1e-3]) for _ in range(rows)],
            "click": [int(draw.random() < 0.4) for _ in range(rows)],
        },
        schema_overrides={"price": pl.Float64, "seen": pl.List(pl.Int64)},
    )


def printed(draw: random.Random, values: list[str]) -> str:
    ways = ["|".join(values), "| ".join(values), str(values), json.dumps(values), f"({', '.join(values)})", values[0]]
    return draw.choice([*ways, "['it\\'s' '1']", "[1. 2.]|b", "[a"])


def node_of(folder: Path, frame: pl.DataFrame, fields: dict[str, Any], **source: Any) -> dict[str, Any]:
    frame.write_parquet(folder / "t.parquet")
    pl.DataFrame({"key": [1, 2, 5], "a": [0.5, -1.0, 3.0], "b": [1.0, 2.0, 4.0]}).write_parquet(
        folder / "pictures.parquet"
    )
    return tidy_node(folder, "t.parquet", fields, **source)


@pytest.fixture
def scorer_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Scorer]:
    """The scorer of a prepared table, without a model."""
    monkeypatch.setattr(scorer, "load_graph", lambda *_: None)

    def make(folder: Path, nulls: tuple[str, ...] = ()) -> Scorer:
        found = transforms(folder, nulls=nulls, negative_rate=None)
        (tmp_path / "bundle.json").write_text(json.dumps(found.record))
        np.savez(tmp_path / "arrays.npz", **found.arrays)
        return Scorer(tmp_path)

    return make


def assert_alike(node: dict[str, Any], dataset: Any, scorer: Scorer, frame: pl.DataFrame, tmp_path: Path) -> None:
    frame.write_parquet(tmp_path / "new.parquet")
    rows = new_table(node, dataset, NewRows(tmp_path / "new.parquet"))
    expected = encode_rows(rows.frame, dataset.folder).split
    ids, values = scorer.inputs(frame.to_dicts())
    assert ids.flags.c_contiguous
    assert values.flags.c_contiguous
    for field, start in zip(dataset.schema.fields, dataset.schema.column_offsets, strict=True):
        columns = slice(start, start + field.width)
        np.testing.assert_array_equal(ids[:, columns], expected.ids_of(slice(None))[:, columns], err_msg=field.name)
    np.testing.assert_array_equal(values, expected.values)


@pytest.mark.parametrize("seed", range(2))
def test_rows_get_the_ids_and_values_of_predict(seed: int, tmp_path: Path, scorer_of: Callable[..., Scorer]) -> None:
    node = node_of(tmp_path, table(seed), FIELDS)
    dataset = prepared(node, data_dir=tmp_path / "out")
    scorer = scorer_of(dataset.folder)
    new = table(seed + 10, 120)  # with values that train has not seen
    assert_alike(node, dataset, scorer, new, tmp_path)
    texts = new.with_columns(pl.col("code", "count", "price", "when", "ratio").cast(pl.String))
    assert_alike(node, dataset, scorer, texts, tmp_path)


def test_what_the_source_takes_for_null_is_missing(tmp_path: Path, scorer_of: Callable[..., Scorer]) -> None:
    node = node_of(tmp_path, table(1), {"user": {}, "code": {}, "price": {"kind": "value"}}, null_values=["u1", 2])
    dataset = prepared(node, data_dir=tmp_path / "out")
    scorer = scorer_of(dataset.folder, ("u1", "2"))
    assert_alike(node, dataset, scorer, table(2), tmp_path)
    assert "u1" not in scorer.known["user"]


def rewritten(made: list[rules.Rule], cells: Iterable[Any]) -> list[str]:
    """What rules make of cells."""
    compiled = [scorer.compiled(pattern, new) for pattern, new in made]
    return [scorer.rewritten(compiled, cell) for cell in cells]


def test_rules_spell_texts_and_numbers_as_train_does() -> None:
    draw = random.Random(3)
    texts = ["".join(draw.choices("0012.-eE+5T", k=draw.randrange(1, 7))) for _ in range(5000)]
    texts += ["True", "FALSE", "1.50", "9.9e999", "1e-05", "-0.0", "-.0", "00.0", "5."]
    numbers = [draw.uniform(-1, 1) * 10 ** draw.randrange(-12, 25) for _ in range(2000)]
    numbers += [float(draw.randrange(10 ** draw.randrange(1, 18))) for _ in range(500)] + [0.0, 1e17, math.inf]
    for cells in (pl.Series("cell", texts), pl.Series("cell", numbers)):
        expected = cells.to_frame().select(value_texts(pl.col("cell"), cells.dtype, null_words=False)).to_series()
        assert rewritten(rules.SPELLING, cells) == expected.to_list()


def test_rules_read_iso_texts_as_train_does() -> None:
    draw = random.Random(4)
    cells = []
    for _ in range(1000):
        day = f"20{draw.randrange(10, 30)}-{draw.randrange(1, 13):02}-{draw.randrange(1, 29):02}"
        clock = draw.choice(["", f"T{draw.randrange(24):02}:{draw.randrange(60):02}", " 10:30"])
        second = draw.choice(["", ":07"]) if clock else ""
        fraction = draw.choice(".,") + str(draw.randrange(1, 10**9)) if second and draw.random() < 0.5 else ""
        cells.append(day + clock + second + fraction + draw.choice(["", "Z", " UTC", "+02", "-0330", " +05:45"]))
    expected = pl.DataFrame({"at": cells}).select(moment("at", pl.String(), "iso").dt.epoch("us")).to_series()
    read = rules.of_time(HistorySpec("past", of="item", by="user", time="at", unit="iso"), ())
    assert [int(text) for text in rewritten(read["rules"], cells)] == expected.to_list()


def test_rules_find_printed_lists_where_train_does() -> None:
    """Train looks at what is left without the parts in quotes; a rule sees the whole text."""
    draw = random.Random(5)
    texts = ["".join(draw.choices("[](){}',:a \"\\", k=draw.randrange(2, 12))) for _ in range(20_000)]
    texts += [f"[{text}]" for text in texts] + [f"[[{text}]]" for text in texts] + [f"({text},)" for text in texts]
    found = Counter()
    for text in map(str.strip, texts):
        bare = re.sub(QUOTED, "", text)
        assert bool(re.search(rules.PRINTED, text)) == bool(re.search(LIST, bare)), text
        assert bool(re.search(rules.NESTED, text)) == bool(re.search(NESTED, bare)), text
        found.update(list=bool(re.search(LIST, bare)), nested=bool(re.search(NESTED, bare)))
    assert min(found["list"], found["nested"]) > 1000


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises((UserError, ValueError)) as caught:
        action()
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (pl.all().exclude("code"), "no column 'code'. Nearest: "),
        (pl.all().exclude("when"), "no column 'when'. "),
        (pl.lit("dear").alias("price"), "conversion from `str` to `f64` failed"),
        (pl.lit("soon").alias("day"), "conversion from `str` to `datetime[μs]` failed"),
        (pl.lit(5e12).alias("when"), "column 'when': 5000000000000 is no time between 1970 and 2100 in unit s. Leave"),
        (pl.lit(1.6e12).alias("when"), "is no time between 1970 and 2100 in unit s. It is one in ms: set unit: ms."),
        (pl.lit(None, pl.Int64).alias("when"), "field 'past': column 'when' is blank in a row, which is then neither"),
        (pl.concat_list("user").alias("user"), "field 'user': column 'user' holds "),
        (pl.lit("[[1], [2]]").alias("tags"), "a list of lists or of objects. Expected plain values."),
    ],
)
def test_what_predict_refuses_is_refused_in_its_words(
    change: pl.Expr, words: str, tmp_path: Path, scorer_of: Callable[..., Scorer]
) -> None:
    names = ["user", "code", "price", "tags", "hour", "weekend", "past"]
    node = node_of(tmp_path, table(1), {name: FIELDS[name] for name in names})
    dataset = prepared(node, data_dir=tmp_path / "out")
    scorer = scorer_of(dataset.folder)
    keep = change.meta.output_name(raise_if_undetermined=False) is None
    frame = table(2, 5).select(change) if keep else table(2, 5).with_columns(change)
    said = refusal(lambda: scorer.inputs(frame.to_dicts()))
    assert words in said
    expected = refusal(lambda: encode_rows(frame.lazy(), dataset.folder))
    assert words in expected


def test_a_time_that_only_polars_reads_is_refused_in_words(tmp_path: Path) -> None:
    fields = {"user": {}, "month": {"kind": "datetime", "column": "date", "part": "month", "unit": "%e/%m/%Y"}}
    dataset = prepared(node_of(tmp_path, table(1), fields), data_dir=tmp_path / "out")
    with pytest.raises(UserError, match=r"field 'month': unit=%e/%m/%Y cannot be served, because of %e"):
        transforms(dataset.folder, nulls=(), negative_rate=None)


def test_hash_buckets_of_a_split_schema(tmp_path: Path, scorer_of: Callable[..., Scorer]) -> None:
    schema = {"change": "split", "size": 2, "seed": 1, "fields": None}
    node = node_of(tmp_path, table(1), {"user": {}, "code": {}})
    dataset = prepared(node, data_dir=tmp_path / "out", schema=schema)
    assert dataset.schema.num_fields > 2
    assert_alike(node, dataset, scorer_of(dataset.folder), table(3), tmp_path)


def test_what_a_cell_says_is_worked_out_once(tmp_path: Path, scorer_of: Callable[..., Scorer]) -> None:
    """In bulk, Python runs for each value that a column has, not for each row; only cells that are lists cost more."""
    fields = {name: field for name, field in FIELDS.items() if name != "seen"}
    dataset = prepared(node_of(tmp_path, table(1), fields), data_dir=tmp_path / "out")
    rows = table(2, 20).to_dicts()

    def calls(times: int) -> int:
        profile, own = cProfile.Profile(), scorer_of(dataset.folder)
        profile.runcall(own.inputs, rows * times)
        return sum(entry.callcount for entry in profile.getstats() if not isinstance(entry.code, str))

    assert calls(50) == calls(1) > 20 * len(fields)


@pytest.mark.parametrize("cell", [[[1], [2]], [1, [2]], {"a": 1}, [{"a": 1}], ((1,), 2)])
def test_lists_of_lists_are_refused(cell: Any, tmp_path: Path, scorer_of: Callable[..., Scorer]) -> None:
    dataset = prepared(node_of(tmp_path, table(1), {"user": {}, "seen": {"kind": "multi"}}), data_dir=tmp_path / "out")
    own = scorer_of(dataset.folder)
    said = refusal(lambda: own.inputs([{"user": "u1", "seen": cell}]))
    assert said == "field 'seen' holds lists of lists. Expected texts, or lists of plain values."
    said = refusal(lambda: own.inputs([{"user": cell, "seen": "1"}]))
    assert said == "field 'user': column 'user' holds a list or an object. A list needs kind: multi."
