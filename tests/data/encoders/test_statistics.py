"""Target statistics: equal to their plain twin, blind to a row's own label, and the same for new rows."""

import json
import math
import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fieldctr.data import counts
from fieldctr.data.budget import Limits
from fieldctr.data.counts import Counting
from fieldctr.data.dataset import Dataset
from fieldctr.data.encode import encode, encode_rows
from fieldctr.data.fields.kinds import StatisticSpec
from fieldctr.data.fields.specs import field_specs
from fieldctr.data.hashing import unit_interval_of_rows
from fieldctr.data.shards.reader import Reader
from fieldctr.data.table import SPLITS, Table
from fieldctr.data.values import field_values
from fieldctr.errors import UserError
from fieldctr.ranking import auc

Row = dict[str, Any]

FIELDS = {
    "user_rate": {"kind": "target_mean", "of": ["user"]},
    "item": {},
    "tags": {"kind": "multi", "separator": "|", "max_length": 3},
    "price": {"kind": "value"},
    "hour": {"kind": "datetime", "column": "when", "part": "hour"},
    "user_hour_rate": {"kind": "target_mean", "of": ["user", "hour"], "smoothing": 3, "folds": 4, "seed": 2},
    "item_tags_rate": {"kind": "target_mean", "of": ["item", "tags"], "smoothing": 0.5},
    "raw_rate": {"kind": "target_mean", "of": ["user", "item"], "smoothing": 0},
    "late_rate": {"kind": "target_mean", "of": ["user"], "time": "when", "folds": 6},
    "item_count": {"kind": "count", "of": ["item"]},
    "late_count": {"kind": "count", "of": ["tags"], "time": "when", "folds": 3},
    "binned_rate": {"kind": "target_mean", "of": ["item"], "bins": 4},
    "binned_count": {"kind": "count", "of": ["user", "item"], "bins": 3},
}
SPECS = field_specs(FIELDS, default_min_count=2)
STATISTICS = [spec for spec in SPECS if isinstance(spec, StatisticSpec)]


def random_rows(seed: int, count: int = 300) -> list[Row]:
    draw = random.Random(seed)
    return [
        {
            "user": draw.choice([None, "", *(f"u{draw.randrange(20)}" for _ in range(9))]),
            "item": draw.choice([None, 1, 2, 3, draw.randrange(100)]),
            "tags": "|".join(draw.choice("abcd") for _ in range(draw.randrange(4))),
            "price": draw.random(),
            "when": 1_600_000_000 + 1800 * draw.randrange(40),
            "label": int(draw.random() < 0.4),
            "split": SPLITS[max(0, draw.randrange(5) - 2)],
        }
        for _ in range(count)
    ]


def frame(rows: list[Row]) -> pl.LazyFrame:
    return pl.LazyFrame(rows, schema_overrides={"user": pl.String, "item": pl.Int64}, infer_schema_length=None)


def prepare(folder: Path, rows: list[Row], fields: dict[str, Any] = FIELDS, limits: Limits | None = None) -> Dataset:
    folder.mkdir()
    encode(Table.named(frame(rows)), field_specs(fields, default_min_count=2), folder, group=None, limits=limits)
    return Dataset.load(folder, name="test")


def texts(name: str, row: Row) -> list[object]:
    if name == "tags":
        return list(dict.fromkeys(part for part in row["tags"].split("|") if part))
    value = row["when"] // 3600 % 24 if name == "hour" else row[name]
    return [] if value in (None, "") else [value]


def crossed(spec: StatisticSpec, row: Row) -> list[tuple[object, ...]]:
    """The row's values: one, or one per tag."""
    found: list[tuple[object, ...]] = [()]
    for name in spec.of:
        found = [(*value, text) for value in found for text in texts(name, row)]
    return found


def in_sight(spec: StatisticSpec, rows: list[Row]) -> Iterator[tuple[Row, list[Row]]]:
    """Every row with the train rows that it may see."""
    train = [row for row in rows if row["split"] == "train"]
    places = unit_interval_of_rows(np.arange(len(train)), spec.seed)
    fold = {id(row): int(place * spec.folds) for row, place in zip(train, places, strict=True)}
    if spec.time:
        ordered = sorted(row["when"] for row in train)
        edges = {ordered[math.ceil(k * len(ordered) / spec.folds) - 1] for k in range(1, spec.folds)}
        fold = {id(row): sum(edge < row["when"] for edge in edges) for row in train}
    for row in rows:
        own = fold.get(id(row))
        if own is None:
            yield row, train
        else:
            yield row, [other for other in train if (fold[id(other)] < own if spec.time else fold[id(other)] != own)]


def statistic(spec: StatisticSpec, row: Row, seen: list[Row], train: int) -> float | None:
    numbers = []
    for value in crossed(spec, row) if seen else []:
        like = [other["label"] for other in seen if value in crossed(spec, other)]
        if spec.kind == "count":
            numbers.append(math.log(1 + len(like) / len(seen) * train))
        else:
            rate, weight = sum(other["label"] for other in seen) / len(seen), len(like) + spec.smoothing
            numbers.append((sum(like) + spec.smoothing * rate) / weight if weight else rate)
    return sum(numbers) / len(numbers) if numbers else None


def twin(spec: StatisticSpec, rows: list[Row]) -> dict[str, list[float | None]]:
    """The numbers of each split, not yet scaled."""
    train = sum(row["split"] == "train" for row in rows)
    found: dict[str, list[float | None]] = {split: [] for split in SPLITS}
    for row, seen in in_sight(spec, rows):
        found[row["split"]].append(statistic(spec, row, seen, train))
    return found


def numbers(dataset: Dataset, name: str, split: str = "train") -> np.ndarray:
    """A field's numbers before they were standardised, NaN where missing."""
    record = json.loads((dataset.folder / "encoding.json").read_text())
    scale = record["scales"][dataset.schema.index(name)]
    rows = getattr(dataset, split)
    line = [field.name for field in dataset.schema.fields if field.numeric].index(name)
    known = rows.ids[:, dataset.schema.column_offsets[dataset.schema.index(name)]] == 1
    return np.where(known, rows.values[:, line].astype(np.float64) * scale["sd"] + scale["mean"], np.nan)


@pytest.mark.parametrize(("seed", "chunk"), [(0, 1 << 16), (1, 7), (2, 50)])
def test_statistics_are_their_plain_twin(
    seed: int, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "PENDING_ENTRIES", 10)
    rows = random_rows(seed)
    dataset = prepare(tmp_path / "data", rows, limits=Limits(chunk, block_rows=chunk))
    assert [field.name for field in dataset.schema.fields[:4]] == ["item", "tags", "price", "hour"], "statistics last"
    for spec in STATISTICS:
        expected = twin(spec, rows)
        known = np.array([x for x in expected["train"] if x is not None])
        column = dataset.schema.column_offsets[dataset.schema.index(spec.name)]
        for split in SPLITS:
            plain = np.array(expected[split], np.float64)
            if spec.bins is None:
                np.testing.assert_allclose(numbers(dataset, spec.name, split), plain, rtol=1e-4, atol=1e-6)
            else:
                ranks = [math.ceil(k * len(known) / spec.bins) - 1 for k in range(1, spec.bins)]
                edges = [edge for edge in np.unique(np.sort(known)[ranks]) if edge < known.max()]
                ids = [0 if np.isnan(x) else 1 + sum(edge < x - 1e-12 for edge in edges) for x in plain]
                assert getattr(dataset, split).ids[:, column].tolist() == ids
            facts = dataset.facts["fields"][spec.name]
            assert facts["missing"][split] == pytest.approx(np.isnan(plain).mean())
        if spec.bins is None:
            values = numbers(dataset, spec.name)
            record = json.loads((dataset.folder / "encoding.json").read_text())
            scale = record["scales"][dataset.schema.index(spec.name)]
            assert scale["mean"] == pytest.approx(np.nanmean(values), abs=1e-5)
            assert scale["sd"] == pytest.approx(np.nanstd(values), rel=1e-4)


def test_new_rows_get_the_statistics_that_the_old_ones_got(tmp_path: Path) -> None:
    rows = random_rows(3)
    dataset = prepare(tmp_path / "data", rows)
    raw = frame(rows).filter(pl.col("split") == "test").drop("label", "split")
    again = encode_rows(raw, dataset.folder).split
    np.testing.assert_array_equal(again.ids, dataset.test.ids)
    np.testing.assert_array_equal(again.values, dataset.test.values)
    saved = pl.read_parquet(dataset.folder / "statistics.parquet")
    assert not saved.select("field", "keys").is_duplicated().any()
    assert saved["keys"].min() == 0, "all rows count under the key 0"
    with pytest.raises(UserError, match="no column 'user'"):
        encode_rows(raw.drop("user"), dataset.folder)


@pytest.mark.parametrize("name", ["user_hour_rate", "late_rate"])
def test_a_label_does_not_enter_its_own_row(name: str, tmp_path: Path) -> None:
    rows = random_rows(4)
    train = [i for i, row in enumerate(rows) if row["split"] == "train"]
    before = numbers(prepare(tmp_path / "before", rows), name)
    changed = 0
    for position in (10, 50, len(train) // 2):
        flipped = [row | {"label": 1 - row["label"]} if i == train[position] else row for i, row in enumerate(rows)]
        after = numbers(prepare(tmp_path / f"after {position}", flipped), name)
        np.testing.assert_allclose(after[position], before[position], rtol=1e-6)
        changed += np.sum(np.abs(after - before) > 1e-4)
    assert changed > 3, "but others see it"


def test_folds_of_time_see_earlier_rows_only(tmp_path: Path) -> None:
    rows = random_rows(5)
    middle = sorted(row["when"] for row in rows)[len(rows) // 2]
    rewritten = [row if row["when"] < middle else row | {"label": 1 - row["label"], "user": "u1"} for row in rows]
    one, other = (prepare(tmp_path / name, table) for name, table in (("one", rows), ("other", rewritten)))
    early = np.array([row["when"] < middle for row in rows if row["split"] == "train"])
    for name in ("late_rate", "user_rate"):
        same = np.isclose(numbers(one, name), numbers(other, name), rtol=1e-5, equal_nan=True)
        assert same[early].all() == (name == "late_rate")
    assert np.isnan(numbers(one, "late_rate")[early]).any(), "the first slice sees nothing"


def test_dates_order_rows_as_seconds_do(tmp_path: Path) -> None:
    rows, spec = random_rows(5), {"kind": "target_mean", "of": ["user"], "time": "when", "folds": 6}
    seconds = prepare(tmp_path / "seconds", rows, {"rate": spec})
    dated = [row | {"when": datetime.fromtimestamp(row["when"], UTC).isoformat()[:19]} for row in rows]
    dates = prepare(tmp_path / "dates", dated, {"rate": spec | {"unit": "iso"}})
    np.testing.assert_array_equal(seconds.train.values, dates.train.values)


def test_random_ids_gain_nothing_though_they_would_in_fold(tmp_path: Path) -> None:
    generator, count = np.random.default_rng(6), 20_000
    labels, ids = generator.integers(0, 2, count).tolist(), generator.integers(0, count, count).tolist()
    rows = [
        {"id": i, "when": n, "label": y, "split": SPLITS[max(0, n % 10 - 7)]}
        for n, (i, y) in enumerate(zip(ids, labels, strict=True))
    ]
    fields = {
        "rate": {"kind": "target_mean", "of": ["id"]},
        "late_rate": {"kind": "target_mean", "of": ["id"], "time": "when", "folds": 50},
    }
    (tmp_path / "data").mkdir()
    encode(Table.named(pl.LazyFrame(rows)), field_specs(fields, 1), tmp_path / "data", group=None)
    dataset = Dataset.load(tmp_path / "data", name="random")
    for name in fields:
        assert auc(dataset.train.label, np.nan_to_num(numbers(dataset, name), nan=0.5)) == pytest.approx(0.5, abs=0.015)
    train = [row for row in rows if row["split"] == "train"]
    seen, clicks = Counter(row["id"] for row in train), Counter(row["id"] for row in train if row["label"])
    in_fold = np.array([(clicks[row["id"]] + 10) / (seen[row["id"]] + 20) for row in train])
    assert auc(dataset.train.label, in_fold) > 0.85


def test_one_seed_gives_one_result_and_decides_train_only(tmp_path: Path) -> None:
    rows, spec = random_rows(7), {"kind": "target_mean", "of": ["user"]}
    one, same, other = (
        prepare(tmp_path / str(i), rows, {"rate": spec | {"seed": seed}}) for i, seed in enumerate((1, 1, 2))
    )
    for name in ("train.values.npy", "statistics.parquet", "encoding.json"):
        assert (one.folder / name).read_bytes() == (same.folder / name).read_bytes()
    assert not np.allclose(numbers(one, "rate"), numbers(other, "rate"), equal_nan=True)
    np.testing.assert_allclose(numbers(one, "rate", "test"), numbers(other, "rate", "test"), rtol=1e-5)


def test_counting_holds_what_is_distinct_not_what_streams_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "PENDING_ENTRIES", 100)
    generator, counting = np.random.default_rng(8), Counting()
    rows: Counter[int] = Counter()
    clicks: Counter[int] = Counter()
    for _ in range(300):
        keys, labels = generator.integers(0, 400, 64).astype(np.uint64) << np.uint64(8), generator.integers(0, 2, 64)
        counting.add(keys, labels)
        rows.update(keys.tolist())
        clicks.update(keys[labels == 1].tolist())
        assert sum(len(part.keys) for part in counting.parts) <= 2 * 400 + 64
    whole, keys = counting.counts(), np.array(sorted(rows), np.uint64)
    assert whole.keys.tolist() == keys.tolist()
    found = whole.find(keys)
    assert found[0].tolist() == [rows[key] for key in keys.tolist()]
    assert found[1].tolist() == [clicks[key] for key in keys.tolist()]


def test_a_language_model_reads_bins_as_intervals_and_no_number(tmp_path: Path) -> None:
    dataset = prepare(tmp_path / "data", random_rows(9))
    values = dict(zip((field.name for field in dataset.schema.fields), field_values(dataset.folder), strict=True))
    assert values["user_rate"].texts == []
    assert values["binned_count"].texts[0].startswith("(-inf, ")
    assert {field.name: field.text for field in dataset.schema.fields}[
        "user_hour_rate"
    ] == "click rate by user and hour"


@pytest.mark.parametrize(
    ("times", "words"), [([5, 5, 5, 5], "have one time in column 'when'"), ([1, None, 3, 4], "'when' is blank")]
)
def test_a_time_that_orders_nothing_is_refused(times: list[int | None], words: str, tmp_path: Path) -> None:
    columns = {"a": ["x"] * 4 + ["y"] * 4, "when": times + [9] * 4, "label": [0, 1] * 4}
    table = pl.LazyFrame(columns | {"split": ["train"] * 4 + ["valid"] * 2 + ["test"] * 2})
    specs = field_specs({"rate": {"kind": "target_mean", "of": ["a"], "time": "when"}}, 1)
    with pytest.raises(UserError, match=words):
        encode(Table.named(table), specs, tmp_path, group=None)


def test_a_field_that_is_false_is_left_out_but_its_column_still_counts() -> None:
    rate = {"kind": "target_mean", "of": ["user"]}
    specs = field_specs({"user": False, "hour": None, "rate": rate}, 1)
    assert [spec.name for spec in specs] == ["hour", "rate"]
    assert [spec.column for spec in Reader.of(specs).fields] == ["hour", "user"]
    with pytest.raises(UserError, match=r"dataset\.fields\.user=True"):
        field_specs({"user": True}, 1)
