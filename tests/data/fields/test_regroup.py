"""Other schemas of the same columns, and fewer rows: what changes and what must not."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fieldctr.data.dataset import Dataset
from fieldctr.data.encode import encode, encode_rows
from fieldctr.data.fields.kinds import FieldSpec
from fieldctr.data.fields.regroup import Regrouping, regrouped
from fieldctr.data.fields.specs import field_specs
from fieldctr.data.prepare import prepared
from fieldctr.data.splits import by_random, thinned
from fieldctr.data.table import DROP, SPLIT, SPLITS, Table
from fieldctr.errors import UserError

ROWS = 600
SPECS = field_specs({"user": {"text": "who"}, "item": {}, "hour": {}, "price": {"kind": "value"}}, 1)


def raw_rows() -> pl.DataFrame:
    rng = np.random.default_rng(1)
    split = [SPLITS[0 if i % 3 else 1 + i % 2] for i in range(ROWS)]
    user = [None if x == 0 else f"u{x}" for x in rng.integers(0, 30, ROWS)]
    columns = {"user": user, "item": rng.integers(0, 9, ROWS).astype(float), "hour": rng.integers(0, 24, ROWS)}
    return pl.DataFrame(columns | {"price": rng.random(ROWS), "label": rng.integers(0, 2, ROWS), "split": split})


def encoded(specs: tuple[FieldSpec, ...], folder: Path, table: Table | None = None) -> Dataset:
    folder.mkdir()
    encode(table or Table.named(raw_rows().lazy()), specs, folder, group=None)
    return Dataset.load(folder, name="t")


def change(kind: str, fields: list[str] | None = None, size: int | None = 2, seed: int = 1) -> tuple[FieldSpec, ...]:
    return regrouped(SPECS, Regrouping(kind, fields, size, seed))  # type: ignore[arg-type]


def test_a_history_stays_with_the_field_that_it_is_of() -> None:
    specs = field_specs({"user": {}, "item": {}, "hour": {}, "past": {"kind": "multi", "shares": "item"}}, 1)
    for kind in ("merge", "split"):
        after = regrouped(specs, Regrouping(kind, None, 2, 1))  # type: ignore[arg-type]
        assert {"item", "past"} <= {spec.name for spec in after}
        with pytest.raises(UserError, match="'item' has a history"):
            regrouped(specs, Regrouping(kind, ["item"], 2, 1))  # type: ignore[arg-type]
    for seed in range(5):
        after = regrouped(specs, Regrouping("shuffle", None, None, seed))
        column = {spec.name: spec.column for spec in after if isinstance(spec, FieldSpec)}
        assert [column[spec.shares] for spec in after if spec.shares] == ["item"]


def partition(ids: np.ndarray) -> set[frozenset[int]]:
    """Which rows share a value, whatever its id."""
    return {frozenset(np.flatnonzero(ids == value).tolist()) for value in np.unique(ids)}


def test_merged_fields_tell_apart_what_either_did(tmp_path: Path) -> None:
    specs = change("merge", ["user", "item"])
    cross = specs[-1].name
    assert {spec.name for spec in specs} == {"hour", "price", cross}
    assert set(cross.split(" x ")) == {"user", "item"}
    assert specs[-1].text in ("who and item", "item and who")
    dataset = encoded(specs, tmp_path / "t")
    train = raw_rows().filter(split="train")
    pairs = train.select(pl.concat_str("user", "item", separator="|"))["user"].to_list()  # None for a blank
    expected = {frozenset(i for i, one in enumerate(pairs) if one == pair) for pair in set(pairs)}
    assert partition(dataset.train.ids[:, dataset.schema.index(cross)]) == expected


def test_the_parts_of_a_split_field_are_the_field(tmp_path: Path) -> None:
    specs = change("split", ["user"], size=3)
    assert [spec.name for spec in specs] == ["user/1", "user/2", "user/3", "item", "hour", "price"]
    whole, parts = encoded(SPECS, tmp_path / "whole"), encoded(specs, tmp_path / "parts")
    own = parts.train.ids[:, :3]
    known = whole.train.ids[:, 0] > 0
    assert np.array_equal((own > 0).sum(1), known.astype(int))  # exactly one part has the value
    assert sum(field.vocab_size - 1 for field in parts.schema.fields[:3]) == whole.schema.fields[0].vocab_size - 1
    code = np.where(known, own.argmax(1) * 1000 + own.max(1), 0)
    assert partition(code) == partition(whole.train.ids[:, 0])


def test_shuffled_fields_exchange_their_content_and_nothing_else(tmp_path: Path) -> None:
    specs = change("shuffle", seed=3)
    assert [(spec.name, spec.text) for spec in specs] == [(spec.name, spec.text) for spec in SPECS]
    assert [spec.column for spec in specs] != [spec.column for spec in SPECS]
    plain, shuffled = encoded(SPECS, tmp_path / "plain"), encoded(specs, tmp_path / "shuffled")
    for position, spec in enumerate(specs):
        source = plain.schema.index(spec.column)
        assert np.array_equal(shuffled.train.ids[:, position], plain.train.ids[:, source])


@pytest.mark.parametrize("kind", ["merge", "split", "shuffle"])
def test_new_raw_rows_are_encoded_by_the_same_schema(kind: str, tmp_path: Path) -> None:
    dataset = encoded(change(kind), tmp_path / "t")
    rows = raw_rows().filter(split="test")
    again = encode_rows(rows.lazy(), tmp_path / "t").split
    assert np.array_equal(again.ids, dataset.test.ids)
    assert again.values is not None
    assert dataset.test.values is not None
    np.testing.assert_array_equal(again.values, dataset.test.values)


def test_a_field_that_cannot_be_changed_is_named() -> None:
    with pytest.raises(UserError, match=r"no field 'itme'\. Nearest: item"):
        change("merge", ["user", "itme"])
    with pytest.raises(UserError, match="'price' is of kind value; split needs categorical"):
        change("split", ["price"])
    with pytest.raises(UserError, match=r"columns=\['a'\] is not allowed"):
        field_specs({"a": {"kind": "cross", "columns": ["a"]}}, 1)


def test_a_smaller_fraction_of_train_is_part_of_a_larger_one() -> None:
    frame = pl.DataFrame({"x": range(30_000)}).lazy()
    frame = by_random(frame, [0.8, 0.1, 0.1], seed=1).with_columns(
        pl.when(pl.col("x") == 7).then(pl.lit("bad")).alias(DROP)
    )
    kept: dict[float, set[Any]] = {}
    for fraction in (0.1, 0.4, 1.0):
        rows = thinned(frame, fraction, seed=1).collect()
        assert rows.filter(x=7)[DROP].item() == "bad"

        left = rows.filter(pl.col(DROP).is_null())
        others = left.filter(pl.col(SPLIT) != "train")["x"].to_list()
        kept[fraction] = set(left.filter(pl.col(SPLIT) == "train")["x"])
        assert others == rows.filter(pl.col(SPLIT) != "train", pl.col("x") != 7)["x"].to_list()
    train = len(kept[1.0])
    assert kept[0.1] < kept[0.4] < kept[1.0]
    assert len(kept[0.1]) / train == pytest.approx(0.1, abs=0.01)  # not that of a random split with the same seed
    assert len(kept[0.4]) / train == pytest.approx(0.4, abs=0.02)
    other = thinned(frame, 0.4, seed=2).filter(pl.col(DROP).is_null(), pl.col(SPLIT) == "train").collect()
    assert len(set(other["x"]) & kept[0.4]) / len(other) == pytest.approx(0.4, abs=0.03)


def test_a_fraction_learns_its_vocabulary_from_its_own_rows(tmp_path: Path) -> None:
    dataset = encoded(SPECS, tmp_path / "t", Table(thinned(Table.named(raw_rows().lazy()).frame, 0.2, seed=1)))
    assert dataset.facts["rows"]["dropped"] == {"not in train_fraction": 400 - len(dataset.train)}
    assert dataset.train.ids[:, 0].max() == dataset.schema.fields[0].vocab_size - 1
    assert (dataset.test.ids[:, 0] == 0).sum() > 0


def test_statistics_stay_of_the_values_that_they_were_of(tmp_path: Path) -> None:
    node = {"user": {}, "item": {}, "hour": {}, "rate": {"kind": "target_mean", "of": ["item"]}}
    specs = field_specs(node, 1)
    plain = encoded(specs, tmp_path / "plain")
    for kind, size in (("merge", 2), ("split", 2), ("shuffle", None)):
        changed = regrouped(specs, Regrouping(kind, None, size, 3))  # type: ignore[arg-type]
        assert changed[-1].name == "rate"
        other = encoded(changed, tmp_path / kind)
        assert other.train.values is not None
        np.testing.assert_array_equal(other.train.values, plain.train.values)


def test_a_thinned_table_is_still_the_published_one_and_a_folder_of_its_own(tmp_path: Path) -> None:
    raw_rows().write_csv(tmp_path / "t.csv")
    source = {"_target_": "fieldctr.data.sources.tidy.read", "files": "t.csv", "origin": "", "separator": ","}
    source |= {"null_values": [], "label": {"column": "label"}, "split": {"by": "column", "column": "split"}}
    node = {"name": "t", "raw_dir": str(tmp_path), "source": source, "min_count": 1, "group": None}
    node |= {"fields": {"user": {}, "item": {}}, "published": {"md5": {}, "rows": {"train": 400}}}
    whole = prepared(node, data_dir=tmp_path / "data")
    thin = prepared(node | {"train_fraction": 0.5}, data_dir=tmp_path / "data")
    split = {"change": "split", "fields": ["user"], "size": 2, "seed": 1}
    parts = prepared(node, data_dir=tmp_path / "data", schema=split)
    assert len({whole.digest, thin.digest, parts.digest}) == 3
    assert len(thin.train) < len(whole.train) == 400
    assert len(thin.test) == len(whole.test)
    assert [field.name for field in parts.schema.fields] == ["user/1", "user/2", "item"]
    assert not {"columns", "bucket", "buckets"} & set(json.loads((whole.folder / "key.json").read_text())["fields"][0])
