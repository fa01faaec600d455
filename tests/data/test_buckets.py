"""Hashed fields: equal to a plain twin, the same for ever, and of a memory that the values do not decide."""

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fieldctr.data.dataset import Dataset
from fieldctr.data.encode import encode, encode_rows
from fieldctr.data.fields.specs import field_specs
from fieldctr.data.hashing import text_hashes
from fieldctr.data.shards.dictionary import MergedTexts, merge_buckets
from fieldctr.data.table import SPLITS, Table
from fieldctr.data.values import field_values, row_texts

MASK = 2**64 - 1


def mixed(x: int) -> int:
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def plain_hash(text: str | None) -> int:
    """In Python's own numbers."""
    if not text:
        return 0
    factors = [mixed((j + 1) * 0x9E3779B97F4A7C15 & MASK) | 1 for j in range(len(text.encode()))]
    return mixed(sum(factor * (byte + 1) for factor, byte in zip(factors, text.encode(), strict=True)) & MASK)


def bucket(text: str | None, num_buckets: int) -> int:
    return 1 + plain_hash(text) % num_buckets if text else 0


ITEMS = ["a", "b", "a", None, "ü", "", "3.0", "3", "long text", "a"]
TAGS = ["x|y", "", None, "y|x|y|z", "3.0|3", "|x", "z", " x ", "q|r|s", "x"]
SPECS = field_specs(
    {
        "item": {"num_buckets": 7},
        "many": {"column": "item", "num_buckets": 100_003},
        "tags": {"kind": "multi", "separator": "|", "max_length": 2, "num_buckets": 50},
        "both": {"kind": "cross", "columns": ["item", "tags"], "num_buckets": 1000},
        "known": {"column": "item", "min_count": 2},
        "rate": {"kind": "target_mean", "of": ["item"]},
    },
    1,
)


def frame() -> pl.LazyFrame:
    split = [split for split, count in zip(SPLITS, (6, 2, 2), strict=True) for _ in range(count)]
    return pl.LazyFrame({"item": ITEMS, "tags": TAGS, "label": [0, 1] * 5, "split": split})


def prepare(folder: Path) -> Dataset:
    encode(Table.named(frame()), SPECS, folder, group=None)
    return Dataset.load(folder, name="t")


def test_ids_are_those_of_the_plain_twin(tmp_path: Path) -> None:
    dataset = prepare(tmp_path)
    expected = []
    for raw, tags in zip(ITEMS, TAGS, strict=True):
        item = "3" if raw == "3.0" else raw
        parts = ["3" if part == "3.0" else part for part in (one.strip() for one in (tags or "").split("|")) if part]
        parts = list(dict.fromkeys(parts))[:2]
        cross = f"{item} & {tags}" if item and tags else None
        ids = [bucket(part, 50) for part in parts]
        expected.append([bucket(item, 7), bucket(item, 100_003), *ids, *[0] * (2 - len(ids)), bucket(cross, 1000)])
    ids = np.concatenate([getattr(dataset, split).ids for split in SPLITS])
    assert ids[:, :5].tolist() == expected
    assert [field.vocab_size for field in dataset.schema.fields][:4] == [8, 100_004, 51, 1001]
    assert not any(field.numeric for field in dataset.schema.fields[:5])


def test_a_history_hashes_as_its_field_does(tmp_path: Path) -> None:
    history = {"kind": "multi", "separator": "|", "max_length": 1, "num_buckets": 7, "shares": "item"}
    specs = field_specs({"item": {"num_buckets": 7}, "past": {"column": "item", **history}}, 1)
    encode(Table.named(frame()), specs, tmp_path, group=None)
    ids = Dataset.load(tmp_path, name="t").train.ids
    assert np.array_equal(ids[:, 0], ids[:, 1])
    assert ids.any()


def test_hashes_are_these_for_ever() -> None:
    """Other numbers here would silently change every trained model's input: raise VERSION of prepare with them."""
    found = text_hashes(pl.Series(["a", None, "", "68fd1e64", "ü"]))
    assert found.tolist() == [plain_hash(text) for text in ("a", None, "", "68fd1e64", "ü")]
    assert found[3] % 1_000_000 == 109762
    assert text_hashes(pl.Series([None, ""], dtype=pl.String)).tolist() == [0, 0]


def test_predict_gives_what_prepare_gave(tmp_path: Path) -> None:
    dataset = prepare(tmp_path)
    again = encode_rows(frame().filter(pl.col("split") == "test"), tmp_path).split
    assert np.array_equal(again.ids, dataset.test.ids)
    assert again.values is not None
    assert dataset.test.values is not None
    assert np.array_equal(again.values, dataset.test.values)


def merged(words: list[list[str]], num_buckets: int) -> MergedTexts:
    """One shard per list; every word once in train."""
    shards = ((pl.Series(texts), np.eye(3, 1, dtype=np.int64) * np.ones(len(texts), np.int64)) for texts in words)
    return merge_buckets(shards, num_buckets, lambda need: None)


def test_buckets_fill_evenly_and_values_share_them_as_chance_has_it() -> None:
    values = [f"{k:08x}" for k in range(20_000)]
    every = merged([values], 20_000)
    assert every.filled() == pytest.approx(1 - math.exp(-1), abs=0.01)
    (codes,) = every.code_maps
    shared = np.mean(np.bincount(codes)[codes] > 1)
    assert shared == pytest.approx(every.filled(), abs=0.01)  # what lint says of a crowded field
    assert len(np.unique(text_hashes(pl.Series(values)))) == len(values)


def test_no_text_of_a_shard_is_kept_for_a_bucket() -> None:
    every = merged([[f"v{k}" for k in range(start, start + 10_000)] for start in range(0, 50_000, 10_000)], 100)
    assert every.counts.shape == (3, 101)
    assert every.counts[0].sum() == every.counts.sum() == 50_000
    assert every.texts is None
    assert every.names().to_list() == [None, *map(str, range(1, 101))]


def test_facts_say_what_can_be_known_without_the_values(tmp_path: Path) -> None:
    dataset = prepare(tmp_path)
    facts = dataset.facts["fields"]["many"]
    assert facts["filled"] == 3 / 100_003  # a, b, ü
    assert facts["missing"] == {"train": pytest.approx(1 / 3), "valid": 0.0, "test": 0.0}
    assert facts["unseen"] == {"train": 0.0, "valid": 1.0, "test": 0.5}
    assert "filled" not in dataset.facts["fields"]["known"]
    values = field_values(tmp_path)
    assert values[1].texts == []
    assert row_texts(dataset, values, [1, 4], count=3, seed=1)[0].startswith("many is unknown; known is ")
