"""Encoding: equal to its plain twin on random tables, and true to its rules."""

import json
import math
import random
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs
import pytest

from fieldctr.data.budget import Limits
from fieldctr.data.dataset import Dataset
from fieldctr.data.encode import encode, encode_rows
from fieldctr.data.fields.kinds import FieldSpec
from fieldctr.data.fields.specs import field_specs
from fieldctr.data.table import DROP, LABEL, SPLIT, SPLITS, Table
from fieldctr.errors import UserError
from fieldctr.schema import Field, Schema

Row = dict[str, Any]


def canonical(raw: object) -> str | None:
    """A raw cell as the text that stands in the vocabulary; None where missing."""
    if raw is None or raw == "" or (isinstance(raw, float) and math.isnan(raw)):
        return None
    if isinstance(raw, bool):
        return str(raw).lower()
    text = str(int(raw)) if isinstance(raw, float) and raw.is_integer() else str(raw)
    whole, point, rest = text.partition(".")
    if point and rest and set(rest) == {"0"} and whole.lstrip("-").isdigit():
        text = whole
    return "0" if text == "-0" else text


def number(raw: object) -> float | None:
    text = canonical(raw)
    return None if text is None or not text.strip() else float(text)


def values_of(spec: FieldSpec, row: Row) -> list[str]:
    """The texts of a row in one field, before any vocabulary."""
    raw = row[spec.column]
    if spec.kind == "multi":
        parts = [canonical(part.strip()) for part in (raw or "").split(spec.separator)]
        known = [part for part in parts if part]
        known = known if spec.shares else list(dict.fromkeys(known))
        return known[-spec.max_length :] if spec.keep == "last" else known[: spec.max_length]
    if spec.kind == "log_square":
        x = number(raw)
        return [] if x is None else [str(math.floor(math.log(x) ** 2) if x > 2 else int(x))]
    if spec.kind == "datetime":
        seconds = number(raw)
        if seconds is None:
            return []
        moment = datetime.fromtimestamp(seconds, UTC)
        return [str({"hour": moment.hour, "weekday": moment.isoweekday(), "year": moment.year}[spec.part])]
    text = canonical(raw)
    return [] if text is None else [text]


def vocabulary_of(spec: FieldSpec, rows: list[Row]) -> list[tuple[str, int]]:
    """(value, count) in the order of ids, from the train rows: what any field of its table has often enough."""
    kept: Counter[str] = Counter()
    owner = spec.shares or spec.name
    for one in (one for one in SPECS if owner in (one.name, one.shares)) if spec in SPECS else (spec,):
        counts = Counter(v for row in rows if row["split"] == "train" for v in values_of(one, row))
        kept.update({value: count for value, count in counts.items() if count >= one.min_count})
    return sorted(kept.items(), key=lambda pair: (-pair[1], pair[0].encode()))


def edges_of(spec: FieldSpec, rows: list[Row]) -> list[float]:
    ordered = sorted(x for row in rows if row["split"] == "train" and (x := number(row[spec.column])) is not None)
    if not ordered:
        return []
    cuts = {ordered[math.ceil(k * len(ordered) / spec.bins) - 1] for k in range(1, spec.bins)}
    return sorted(cut for cut in cuts if cut < ordered[-1])


def scale_of(spec: FieldSpec, rows: list[Row]) -> tuple[float, float]:
    known = [x for row in rows if row["split"] == "train" and (x := number(row[spec.column])) is not None]
    if spec.scale == "none" or not known:
        return 0.0, 1.0
    mean = sum(known) / len(known)
    return mean, math.sqrt(sum((x - mean) ** 2 for x in known) / len(known)) or 1.0


def encoded(specs: tuple[FieldSpec, ...], rows: list[Row], split: str) -> tuple[list[list[int]], list[list[float]]]:
    """The ids and values of a split's rows."""
    ids: list[list[int]] = [[] for row in rows if row["split"] == split]
    values: list[list[float]] = [[] for _ in ids]
    mine = [row for row in rows if row["split"] == split]
    for spec in specs:
        known = {value: i for i, (value, _) in enumerate(vocabulary_of(spec, rows), 1)} if not spec.numeric else {}
        edges = edges_of(spec, rows) if spec.kind == "quantile" else []
        mean, sd = scale_of(spec, rows) if spec.kind == "value" else (0.0, 1.0)
        for row, line, value in zip(mine, ids, values, strict=True):
            if spec.numeric:
                x = number(row[spec.column])
                bin_id = 0 if x is None else 1 + sum(edge < x for edge in edges)
                line.append(bin_id if spec.kind == "quantile" else int(x is not None))
                if spec.kind == "value":
                    value.append(0.0 if x is None else (x - mean) / sd)
            else:
                found = [known[v] for v in values_of(spec, row) if v in known]
                line.extend(found + [0] * (spec.width - len(found)))
    return ids, values


SPECS = field_specs(
    {
        "word": {},
        "code": {"min_count": 2},
        "ratio": None,
        "tags": {"kind": "multi", "separator": "|", "max_length": 3},
        "past": {
            "kind": "multi",
            "column": "tags",
            "separator": "|",
            "shares": "word",
            "max_length": 4,
            "min_count": 3,
        },
        "hour": {"kind": "datetime", "column": "when", "part": "hour"},
        "weekday": {"kind": "datetime", "column": "when", "part": "weekday"},
        "price_square": {"kind": "log_square", "column": "price"},
        "price_bin": {"kind": "quantile", "column": "price", "bins": 5},
        "price": {"kind": "value"},
        "plain": {"kind": "value", "column": "ratio", "scale": "none"},
    },
    default_min_count=1,
)


def random_rows(seed: int, count: int = 200) -> list[Row]:
    draw = random.Random(seed)

    def row(i: int) -> Row:
        tags = [draw.choice(["a", "b", " c ", "", "3", "3.0", "long tag", "ü"]) for _ in range(draw.randrange(6))]
        return {
            "word": draw.choice(["x", "y", "Z", "zebra", "-0", "3.0", "3", "", None, "ß"]),
            "code": draw.choice([1, 2, 3, 40, 500, None, draw.randrange(10**9)]),
            "ratio": draw.choice([0.5, 3.0, -0.0, 1e18, 2.25, float("nan"), None]),
            "tags": draw.choice([None, "|".join(tags), "|".join(tags)]),
            "when": draw.choice([None, draw.randrange(1_500_000_000, 1_700_000_000)]),
            "price": draw.choice([None, draw.randrange(5), draw.randrange(1000), draw.random() * 10]),
            "label": i % 2,
            "split": SPLITS[min(2, i % 5)] if i > 10 else "train",
        }

    return [row(i) for i in range(count)]


def table(rows: list[Row]) -> Table:
    kinds = {"word": pl.String, "code": pl.Int64, "ratio": pl.Float64, "tags": pl.String, "when": pl.Int64}
    schema = kinds | {"price": pl.Float64, "label": pl.Int8, "split": pl.String}
    return Table.named(pl.LazyFrame(rows, schema=schema, strict=False))


def prepare(
    folder: Path,
    rows: list[Row],
    specs: tuple[FieldSpec, ...] = SPECS,
    group: str | None = None,
    limits: Limits | None = None,
) -> Dataset:
    folder.mkdir()
    encode(table(rows), specs, folder, group=group, limits=limits)
    return Dataset.load(folder, name="test")


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("chunk", [7, 1 << 16])
def test_encoding_is_its_plain_twin(seed: int, chunk: int, tmp_path: Path) -> None:
    rows = random_rows(seed)
    dataset = prepare(tmp_path / "data", rows, limits=Limits(chunk, block_rows=chunk))
    for name in SPLITS:
        ids, values = encoded(SPECS, rows, name)
        split = getattr(dataset, name)
        assert split.ids.tolist() == ids
        np.testing.assert_allclose(split.values, np.array(values, np.float32), rtol=1e-5, atol=1e-6)
        assert split.label.tolist() == [row["label"] for row in rows if row["split"] == name]
    saved = pl.read_parquet(tmp_path / "data" / "vocabulary.parquet")
    for spec in SPECS:
        if not spec.numeric:
            words = saved.filter(pl.col("field") == spec.name)
            assert list(zip(words["value"], words["count"], strict=True)) == vocabulary_of(spec, rows)
            assert words["id"].to_list() == list(range(1, len(words) + 1))
            assert dataset.schema.fields[dataset.schema.index(spec.name)].vocab_size == len(words) + 1


def test_csv_text_and_typed_columns_encode_alike(tmp_path: Path) -> None:
    rows = random_rows(3)
    typed = prepare(tmp_path / "typed", rows)
    as_text = table(rows).frame.with_columns(cs.float().fill_nan(None)).with_columns(cs.exclude(LABEL).cast(pl.String))
    (tmp_path / "text").mkdir()
    encode(Table.named(as_text), SPECS, tmp_path / "text", group=None)
    text = Dataset.load(tmp_path / "text", name="text")
    ratio = typed.schema.column_offsets[typed.schema.index("ratio")]  # 1e18 is spelled 1e+18 in text
    columns = [c for c in range(typed.schema.num_columns) if c != ratio]
    for name in SPLITS:
        assert np.array_equal(getattr(typed, name).ids[:, columns], getattr(text, name).ids[:, columns])
        np.testing.assert_allclose(getattr(typed, name).values, getattr(text, name).values, rtol=1e-6)


def test_log_squares_of_texts_and_of_numbers_are_alike_in_ids_facts_and_statistics(tmp_path: Path) -> None:
    """Texts are understood once per distinct one, after the rows were read: blanks and `missing` show only then."""
    x = ["0", "7", " ", "7.0", None, "-1", "0.5", "", "40", "NaN", "9", "0"]
    rows = {"x": x, "label": [0, 1] * 6, "split": ["train"] * 6 + ["valid"] * 2 + ["test"] * 4}
    square = {"kind": "log_square", "missing": "0"}
    specs = field_specs({"x": square, "rate": {"kind": "target_mean", "of": ["x"], "folds": 2}}, 1)
    made = []
    for name, cells in {"text": x, "number": [number(cell) for cell in x]}.items():
        (tmp_path / name).mkdir()
        frame = pl.LazyFrame(rows | {"x": pl.Series(cells, strict=False)})
        encode(Table.named(frame), specs, tmp_path / name, group=None)
        made.append(Dataset.load(tmp_path / name, name=name))
        again = encode_rows(frame.filter(pl.col("split") == "test"), tmp_path / name).split
        assert np.array_equal(again.ids, made[-1].test.ids)
        assert again.values is not None
        assert made[-1].test.values is not None
        assert np.array_equal(again.values, made[-1].test.values)
    text, numbers = made
    assert text.facts["fields"]["x"].pop("null_words") == {"train": 0, "valid": 0, "test": 1}
    assert text.facts == numbers.facts
    assert text.facts["fields"]["x"]["missing"] == {"train": 0.5, "valid": 1.0, "test": 0.5}
    for split in SPLITS:
        assert np.array_equal(getattr(text, split).ids, getattr(numbers, split).ids)
        assert np.array_equal(getattr(text, split).values, getattr(numbers, split).values)


def test_permuting_rows_permutes_the_output(tmp_path: Path) -> None:
    rows = random_rows(5)
    order = list(range(len(rows)))
    random.Random(1).shuffle(order)
    plain = prepare(tmp_path / "plain", rows, group="word")
    mixed = prepare(tmp_path / "mixed", [rows[i] for i in order], group="word")
    assert plain.schema == mixed.schema
    for name in SPLITS:
        place = {i: k for k, i in enumerate(i for i, row in enumerate(rows) if row["split"] == name)}
        mine = [place[i] for i in order if i in place]
        one, other = getattr(plain, name), getattr(mixed, name)
        assert np.array_equal(one.ids[mine], other.ids)
        np.testing.assert_allclose(one.values[mine], other.values, rtol=1e-6)
        assert np.array_equal(one.group[mine], other.group)


def test_rows_without_a_value_in_train_are_zero_and_counted(tmp_path: Path) -> None:
    words = {"train": ["a", "a", "b", None], "valid": ["a", "new"], "test": ["", "b"]}
    rows = [
        {"word": word, "label": i % 2, "split": split} for split, texts in words.items() for i, word in enumerate(texts)
    ]
    specs = field_specs({"word": {"min_count": 2}}, 1)
    facts = prepare(tmp_path / "data", rows, specs, group="word").facts
    assert facts["fields"]["word"]["vocab_size"] == 2
    assert facts["fields"]["word"]["missing"] == {"train": 0.25, "valid": 0.0, "test": 0.5}
    assert facts["fields"]["word"]["unseen"] == {"train": pytest.approx(1 / 3), "valid": 0.5, "test": 1.0}
    assert facts["rows"] == {"read": 8, "dropped": {}, "train": 4, "valid": 2, "test": 2}
    assert facts["group"] == {"column": "word", "groups": 3, "blank": facts["fields"]["word"]["missing"]}


def test_groups_tell_users_apart_that_train_never_saw(tmp_path: Path) -> None:
    dataset = prepare(tmp_path / "data", random_rows(6), group="code")
    test = dataset.test
    assert test.group is not None
    column = dataset.schema.column_offsets[dataset.schema.index("code")]
    assert len(np.unique(test.group[test.ids[:, column] == 0])) > 5


def test_dropped_rows_are_counted_by_reason(tmp_path: Path) -> None:
    rows = random_rows(1)
    reasons = pl.Series(DROP, ["too old" if i % 10 == 3 else None for i in range(len(rows))])
    frame = table(rows).frame.with_columns(reasons)
    (tmp_path / "data").mkdir()
    encode(Table.named(frame), SPECS, tmp_path / "data", group=None)
    dataset = Dataset.load(tmp_path / "data", name="test")
    assert dataset.facts["rows"]["dropped"] == {"too old": 20}
    assert sum(map(len, (dataset.train, dataset.valid, dataset.test))) == dataset.facts["rows"]["read"] - 20 == 180
    ids, _ = encoded(SPECS, [row for i, row in enumerate(rows) if i % 10 != 3], "test")
    assert dataset.test.ids.tolist() == ids


def test_new_rows_are_encoded_as_the_old_ones_were(tmp_path: Path) -> None:
    rows = random_rows(2)
    dataset = prepare(tmp_path / "data", rows)
    again = encode_rows(table(rows).frame.filter(pl.col(SPLIT) == "test"), tmp_path / "data").split
    assert np.array_equal(again.ids, dataset.test.ids)
    assert again.values is not None
    assert dataset.test.values is not None
    np.testing.assert_array_equal(again.values, dataset.test.values)
    np.testing.assert_array_equal(again.label, dataset.test.label)
    blind = encode_rows(table(rows).frame.drop(LABEL), tmp_path / "data").split
    assert np.isnan(blind.label).all()


def test_list_columns_are_multi_valued(tmp_path: Path) -> None:
    frame = pl.LazyFrame(
        {
            "tags": [[3, 1, 3], [], None, [1], [9, 1], [1, 3]],
            "label": [0, 1] * 3,
            "split": ["train"] * 2 + ["valid"] * 2 + ["test"] * 2,
        }
    )
    encode(Table.named(frame), field_specs({"tags": {"kind": "multi", "max_length": 2}}, 1), tmp_path, group=None)
    dataset = Dataset.load(tmp_path, name="test")
    assert dataset.train.ids.tolist() == [[2, 1], [0, 0]]  # 1 and 3 came once each: order by text
    assert dataset.valid.ids.tolist() == [[0, 0], [1, 0]]
    assert dataset.test.ids.tolist() == [[1, 0], [1, 2]]  # 9 is unseen and leaves no hole


def test_nothing_of_the_first_pass_is_left(tmp_path: Path) -> None:
    dataset = prepare(tmp_path / "data", random_rows(0), specs=SPECS[:2])
    kinds = {path.name.split(".", 1)[1] for path in dataset.folder.iterdir()}
    assert kinds == {"ids.npy", "label.npy", "json", "parquet"}


def test_a_history_shares_the_ids_of_its_field_and_keeps_order_and_repeats(tmp_path: Path) -> None:
    rows = [{"word": "x", "tags": "y|x|y|new"}, {"word": "z", "tags": "y"}, {"word": "x", "tags": None}] * 6
    rows = [row | {"label": i % 2, "split": SPLITS[i // 6]} for i, row in enumerate(rows)]
    rows[-2] |= {"word": "y", "tags": "unknown|z"}
    past = {"kind": "multi", "column": "tags", "separator": "|", "shares": "word"}
    dataset = prepare(tmp_path / "data", rows, field_specs({"word": {}, "past": past}, 1))
    word, history = dataset.schema.fields
    assert (word.shares, history.shares) == ("", "word")
    assert word.vocab_size == history.vocab_size == dataset.schema.vocab_size == 5
    assert dataset.schema.row_offsets == (0, 0)
    x, z = int(dataset.train.ids[0, 0]), int(dataset.train.ids[1, 0])
    y = int(dataset.test.ids[-2, 0])
    assert dataset.train.ids[0, 1:5].tolist()[:3] == [y, x, y]
    assert len({x, y, z, int(dataset.train.ids[0, 4])} - {0}) == 4
    assert dataset.test.ids[-2, 1:4].tolist() == [z, 0, 0]
    again = encode_rows(pl.LazyFrame(rows, schema={"word": pl.String, "tags": pl.String}), tmp_path / "data").split
    assert again.ids[:6].tolist() == dataset.train.ids.tolist()


def test_tables_without_a_history_are_recorded_as_before(tmp_path: Path) -> None:
    Schema((Field("a", 3), Field("b", 3, 2, shares="a"))).save(tmp_path / "schema.json")
    first, second = json.loads((tmp_path / "schema.json").read_text())["fields"]
    assert "shares" not in first
    assert second["shares"] == "a"
    assert Schema.load(tmp_path / "schema.json").unshared().vocab_size == 6


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"past": {"kind": "multi", "shares": "itme"}, "item": {}}, ["past.shares=itme", "no such field", "item"]),
        ({"past": {"kind": "multi", "shares": "item"}, "item": {"kind": "value"}}, ["kind value", "categorical"]),
        (
            {"past": {"kind": "cross", "shares": "item"}, "item": {}},
            ["no key 'dataset.fields.past.shares' for kind cross"],
        ),
        ({"item": {"shares": "item"}}, ["item.shares=item", "another field"]),
        ({"a": {}, "b": {"shares": "a"}, "c": {"shares": "b"}}, ["c.shares=b", "table of another", "Set shares=a"]),
        ({"a": {}, "b": {"shares": "a", "num_buckets": 7}}, ["num_buckets is 7", "its owner's: None"]),
        ({"past": {"kind": "multi", "shares": "item"}, "item": {"num_buckets": 9}}, ["num_buckets is None", "9"]),
    ],
)
def test_a_history_of_nothing_is_named(fields: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        field_specs(fields, 1)
    for word in words:
        assert word in str(error.value)
