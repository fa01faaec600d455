"""Histories: equal to a loop over all rows, blind to the present and the future, and stored once, however long."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from fieldctr.data.batches import Batches
from fieldctr.data.budget import Limits
from fieldctr.data.dataset import Dataset, Split
from fieldctr.data.encode import encode, encode_rows
from fieldctr.data.encoders import histories
from fieldctr.data.fields.kinds import HistorySpec
from fieldctr.data.fields.regroup import Regrouping, regrouped
from fieldctr.data.fields.specs import field_specs
from fieldctr.data.lookups import EVENTS_FILE
from fieldctr.data.table import SPLITS, Table
from fieldctr.errors import UserError

Row = dict[str, Any]

PAST = {"kind": "history", "of": "item", "by": "user", "time": "when", "max_length": 3}
FIELDS: dict[str, Any] = {
    "past": PAST,
    "rate": {"kind": "target_mean", "of": ["item"], "time": "when", "folds": 3},
    "user": {"num_buckets": 4},  # a history by bucket would be that of five users
    "item": {"missing": "0"},
    "price": {"kind": "value"},
    "brand": {"num_buckets": 7},
    "place": {"kind": "cross", "columns": ["user", "town"]},
    "seen_here": PAST | {"of": "brand", "by": "place", "clicked": False, "max_length": 5},
    "in_town": PAST | {"by": "town", "max_length": 4},
}
KEYS = {"past": ("user",), "seen_here": ("user", "town"), "in_town": ("town",)}


def random_rows(seed: int, count: int = 500, splits: str = "random") -> list[Row]:
    draw = random.Random(seed)
    rows = [
        {
            "user": draw.choice([None, "", *(f"u{draw.randrange(20)}" for _ in range(9))]),
            "town": draw.choice(["a", "b", "c", None]),
            "item": draw.choice([0, 1, 2, 3, draw.randrange(60)]),
            "brand": f"b{draw.randrange(30)}",
            "price": draw.random(),
            "when": 1_600_000_000 + draw.randrange(60),
            "label": int(draw.random() < 0.5),
        }
        for _ in range(count)
    ]
    for row in rows:
        by_time = (row["when"] - 1_600_000_000) // 20
        row["split"] = SPLITS[by_time if splits == "time" else max(0, draw.randrange(5) - 2)]
    return rows


def prepare(folder: Path, rows: list[Row], fields: dict[str, Any] = FIELDS, limits: Limits | None = None) -> Dataset:
    folder.mkdir()
    specs = field_specs(fields, default_min_count=2)
    encode(Table.named(pl.LazyFrame(rows, infer_schema_length=None)), specs, folder, group=None, limits=limits)
    return Dataset.load(folder, name="test")


def columns(dataset: Dataset, name: str) -> slice:
    place = dataset.schema.index(name)
    start = dataset.schema.column_offsets[place]
    return slice(start, start + dataset.schema.fields[place].width)


def of(dataset: Dataset, name: str, split: str) -> list[list[int]]:
    """The known ids of each row's history, in their order."""
    ids = getattr(dataset, split).ids_of(slice(None))[:, columns(dataset, name)]
    assert all((row[row.argmin() :] == 0).all() for row in ids if (row == 0).any()), "padded on the right only"
    return [[i for i in row if i] for row in ids.tolist()]


def twin(dataset: Dataset, name: str, rows: list[Row]) -> dict[str, list[list[int]]]:
    """Every row's history by a look at all rows."""
    spec: Any = next(spec for spec in field_specs(FIELDS, 2) if spec.name == name)
    column, told = columns(dataset, spec.of).start, []
    for s, split in enumerate(SPLITS):
        own = [row for row in rows if row["split"] == split]
        ids = getattr(dataset, split).ids[:, column].tolist()
        told += [(row, s, i) for row, i in zip(own, ids, strict=True)]
    found: dict[str, list[list[int]]] = {split: [] for split in SPLITS}
    for row, s, _ in told:
        key = [row[part] or "" for part in KEYS[name]]
        before = [
            (other["when"], i)
            for other, place, i in told
            if place <= s
            and i
            and (other["label"] or not spec.clicked)
            and all(key)
            and [other[part] or "" for part in KEYS[name]] == key
            and other["when"] < row["when"]
        ]
        found[SPLITS[s]].append([i for _, i in sorted(before, key=lambda pair: pair[0])][-spec.max_length :])
    return found


@pytest.mark.parametrize(("seed", "chunk", "splits"), [(0, 1 << 16, "random"), (1, 7, "random"), (2, 50, "time")])
def test_a_history_is_what_a_look_at_all_rows_finds(seed: int, chunk: int, splits: str, tmp_path: Path) -> None:
    rows = random_rows(seed, splits=splits)
    dataset = prepare(tmp_path / "data", rows, limits=Limits(chunk, block_rows=chunk))
    assert [field.name for field in dataset.schema.fields[-3:]] == ["past", "seen_here", "in_town"]
    for name in KEYS:
        expected = twin(dataset, name, rows)
        assert 2 < max(map(len, expected["train"])) <= dataset.schema.fields[dataset.schema.index(name)].width
        for split in SPLITS:
            assert of(dataset, name, split) == expected[split], (name, split)
            empty = np.mean([not one for one in expected[split]])
            assert dataset.facts["fields"][name]["missing"][split] == pytest.approx(empty)
    clicks = [row for row in rows if row["split"] == "test" and row["user"] and row["label"]]
    known = {row["item"] for row in rows if row["split"] == "train" and row["item"]}
    known = {item for item in known if sum(row["item"] == item for row in rows if row["split"] == "train") > 1}
    unknown = np.mean([row["item"] not in known for row in clicks])
    assert dataset.facts["fields"]["past"]["unseen"]["test"] == pytest.approx(unknown)


def table(*rows: str) -> list[Row]:
    """'user item when label split', with rows of other users that make the splits complete."""
    plain = [dict(zip(("user", "item", "when", "label", "split"), row.split(), strict=True)) for row in rows]
    plain += [{"user": "else", "item": "z", "when": i, "label": i % 2, "split": SPLITS[i // 2]} for i in range(6)]
    return [row | {"when": int(row["when"]), "label": int(row["label"])} for row in plain]


def small(folder: Path, rows: list[Row], **keys: object) -> Dataset:
    folder.mkdir()
    specs = field_specs({"item": {}, "past": PAST | keys}, 1)
    encode(Table.named(pl.LazyFrame(rows)), specs, folder, group=None)
    return Dataset.load(folder, name="small")


def words(dataset: Dataset, split: str, row: int) -> str:
    vocabulary = pl.read_parquet(dataset.folder / "vocabulary.parquet").filter(pl.col("field") == "item")
    text = dict(vocabulary.select("id", "value").iter_rows())
    return "".join(text[i] for i in of(dataset, "past", split)[row])


def test_the_latest_come_in_the_order_of_time_and_repeats_stay(tmp_path: Path) -> None:
    past = ["u a 5 1 train", "u b 1 1 train", "u c 9 1 train", "u a 7 1 train", "u d 8 0 train", "u a 6 1 train"]
    rows = table(*past, "u z 10 1 valid", "w z 10 1 test")
    assert words(small(tmp_path / "3", rows), "valid", 0) == "aac"
    assert words(small(tmp_path / "9", rows, max_length=9), "valid", 0) == "baaac"
    assert words(small(tmp_path / "all", rows, max_length=9, clicked=False), "valid", 0) == "baaadc"
    assert words(small(tmp_path / "w", rows), "test", 0) == "", "a user without a past"


def test_neither_the_present_nor_the_future_is_seen(tmp_path: Path) -> None:
    """The leak that is planted: rows of the same instant before and behind it in the file, and later ones."""
    past, shown = ["u a 1 1 train", "u b 2 1 train"], "u c 5 {} train"
    around = ["u d 5 {} train", "u e 6 {} train", "u f 5 {} valid", "u g 5 {} test"]
    found = set()
    for label in (0, 1):
        rows = [around[0], *past, shown, *around[1:]]
        dataset = small(tmp_path / str(label), table(*(row.format(label) for row in rows)))
        found |= {words(dataset, split, row) for split, row in [("train", 0), ("train", 3), ("valid", 0), ("test", 0)]}
    assert found == {"ab"}
    assert words(dataset, "train", 4) == "bdc", "which are events of what comes later"


def test_no_label_of_a_later_split_reaches_an_earlier_one(tmp_path: Path) -> None:
    """Also where rows are split at random: else the weights would be fitted to features that hold test labels."""
    rows = random_rows(3)
    before = prepare(tmp_path / "before", rows)
    for split, earlier in (("test", ["train", "valid"]), ("valid", ["train"])):
        other = [row | {"label": 1 - row["label"]} if row["split"] == split else row for row in rows]
        after = prepare(tmp_path / split, other)
        for part in earlier:
            assert of(after, "past", part) == of(before, "past", part)
        assert of(after, "past", split) != of(before, "past", split)


def test_what_is_stored_grows_with_events_not_with_their_length(tmp_path: Path) -> None:
    rows = random_rows(4, splits="time")
    fields = {"item": {}, "user": {}, "past": PAST}
    short, long = (
        prepare(tmp_path / str(length), rows, fields | {"past": PAST | {"max_length": length}}) for length in (2, 200)
    )
    for path in short.folder.glob("*.npy"):
        assert path.stat().st_size == (long.folder / path.name).stat().st_size
    items = [row["item"] for row in rows if row["split"] == "train"]
    events = [row for row in rows if row["label"] and row["user"] and items.count(row["item"]) >= 2]
    assert len(np.load(long.folder / EVENTS_FILE)) == 1 + len(events), "once, where splits follow in time"
    assert short.train.ids.shape[1] == 2
    assert short.train.windows is not None
    assert short.train.windows.dtype == np.int32
    assert long.train.ids_of(slice(3)).shape == (3, 202)


def per_row(split: Split) -> Split:
    return Split(split.ids_of(slice(None)), split.label, split.values)


@pytest.mark.parametrize("wide", [False, True])
def test_batches_are_those_of_histories_written_row_by_row(wide: bool, tmp_path: Path) -> None:
    split = prepare(tmp_path / "data", random_rows(5)).train
    if wide:
        assert split.windows is not None
        split = Split(
            split.ids, split.label, split.values, windows=split.windows.astype(np.int64), histories=split.histories
        )
    device = torch.device("cpu")
    for part in (split, split.sample(50, seed=1), split.take(slice(None, None, 3))):
        one, other = (Batches(each, batch_size=16, device=device) for each in (part, per_row(part)))
        for order in (lambda batches: batches.shuffled(1, 2), Batches.ordered):
            for (inputs, label, _), (expected, expected_label, _) in zip(order(one), order(other), strict=True):
                assert torch.equal(inputs.ids, expected.ids)
                assert inputs.ids.dtype == torch.int32
                assert torch.equal(inputs.values, expected.values)
                assert torch.equal(label, expected_label)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("share", [0.0, 0.25])
def test_cuda_slices_the_same_histories(share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fieldctr.data.batches.RESIDENT_SHARE", share)
    split = prepare(tmp_path / "data", random_rows(6)).train
    batches = Batches(split, batch_size=16, device=torch.device("cuda"))
    assert batches.resident == (share > 0)
    expected = Batches(per_row(split), batch_size=16, device=torch.device("cpu"))
    for (inputs, *_), (same, *_) in zip(batches.shuffled(1, 2), expected.shuffled(1, 2), strict=True):
        assert inputs.ids.is_cuda
        assert torch.equal(inputs.ids.cpu(), same.ids)


def test_new_rows_see_what_was_known_of_their_users(tmp_path: Path) -> None:
    rows = random_rows(7, splits="time")
    dataset = prepare(tmp_path / "data", rows)
    test = pl.LazyFrame([row for row in rows if row["split"] == "test"], infer_schema_length=None).drop(
        "label", "split"
    )
    for when in (pl.col("when").cast(pl.String), pl.from_epoch("when"), pl.from_epoch("when").cast(pl.Datetime("ms"))):
        again = encode_rows(test.with_columns(when), dataset.folder).split
        assert np.array_equal(again.ids_of(slice(None)), dataset.test.ids_of(slice(None)))
    later = encode_rows(test.with_columns(when=pl.lit(2_000_000_000), user=pl.lit("nobody")), dataset.folder).split
    assert not later.ids_of(slice(None))[:, columns(dataset, "past")].any(), "a user without a past"
    assert np.array_equal(later.ids[:, columns(dataset, "item")], dataset.test.ids[:, columns(dataset, "item")])
    alone = encode_rows(test.head(1), dataset.folder).split
    assert np.array_equal(alone.ids_of(slice(None)), again.ids_of(slice(1))), "new rows are no events"


@pytest.mark.parametrize("found", [None, "gone"])
def test_rows_without_a_time_are_refused(found: str | None, tmp_path: Path) -> None:
    rows = table("u a 1 1 train")
    rows[0]["when"] = None
    with pytest.raises(UserError, match="'past': column 'when' is blank"):
        small(tmp_path / "data", rows)
    dataset = small(tmp_path / "fine", table("u a 1 1 train"))
    new = pl.LazyFrame({"item": ["a"], "user": ["u"], "when": [None]}, schema_overrides={"when": pl.Int64})
    with pytest.raises(UserError, match="no column 'when'" if found else "'when' is blank"):
        encode_rows(new.drop("when") if found else new, dataset.folder)


def test_a_table_without_an_event_is_refused(tmp_path: Path) -> None:
    rows = [row | {"user": None} for row in table()]
    with pytest.raises(UserError, match="'past': no event"):
        encode(
            Table.named(pl.LazyFrame(rows, schema_overrides={"user": pl.String})),
            field_specs({"item": {}, "past": PAST}, 1),
            tmp_path,
            group=None,
        )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"of": "itme"}, ["past.of=itme", "no such field", "item"]),
        ({"of": "tags"}, ["past.of=tags", "kind multi", "categorical"]),
        ({"of": "past"}, ["past.of=past", "kind history"]),
        ({"by": "tags"}, ["past.by=tags", "kind multi", "categorical or cross"]),
        ({"by": None}, ["past.by=null", "expected str"]),
        ({"time": True}, ["past.time: true is no name", "Quote it"]),
        ({"max_length": 0}, ["past.max_length=0", ">= 1"]),
        ({"shares": "item"}, ["no key 'dataset.fields.past.shares' for kind history", "of, by, time"]),
        ({"kind": "histroy"}, ["kind=histroy", "history"]),
    ],
)
def test_a_history_of_nothing_is_named(change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        field_specs({"item": {}, "user": {}, "tags": {"kind": "multi"}, "past": PAST | change}, 1)
    for word in words:
        assert word in str(error.value)


def test_no_statistic_of_a_history_and_no_history_twice() -> None:
    fields = {"item": {}, "past": PAST}
    with pytest.raises(UserError, match="'past' is a field of kind history"):
        field_specs(fields | {"rate": {"kind": "count", "of": ["past"]}}, 1)
    with pytest.raises(UserError, match="same encoding of item by user"):
        field_specs(fields | {"again": PAST}, 1)


def test_a_history_stays_that_of_its_field_in_another_schema() -> None:
    specs = field_specs({"user": {}, "item": {}, "hour": {}, "past": PAST}, 1)
    for kind in ("merge", "split"):
        after = regrouped(specs, Regrouping(kind, None, 2, 1))  # type: ignore[arg-type]
        assert [spec.name for spec in after if spec.name == "item"] == ["item"]
        assert after[-1] == specs[-1]
    for seed in range(5):
        *fields, past = regrouped(specs, Regrouping("shuffle", None, None, seed))
        assert isinstance(past, HistorySpec)
        column = {spec.name: spec.reads for spec in fields}  # type: ignore[union-attr]
        assert (column[past.of], column[past.by]) == (("item",), ("user",))


def test_events_that_need_more_memory_than_there_is_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(histories, "EVENT_BYTES", 1e12)
    with pytest.raises(UserError, match=r"field 'past': \d+ events of \d+ users take .* GB.*max_memory_gb"):
        prepare(tmp_path / "data", random_rows(1))
