"""Split rules: pure functions of the table, with the fractions that were asked for."""

from datetime import datetime
from typing import Any

import polars as pl
import pytest

from fieldctr.data.splits import ROW, with_split
from fieldctr.data.table import DROP, SPLIT, SPLITS
from fieldctr.errors import UserError

EIGHT = [0.8, 0.1, 0.1]
PINNED_RANDOM = "arearaarreerrrerraaarrraaarraaeaarrraere"


def assigned(frame: pl.DataFrame | pl.LazyFrame, **rule: object) -> list[str]:
    done = with_split(frame.lazy(), rule)
    assert not [name for name in done.collect_schema() if name.startswith(ROW)]
    return done.collect()[SPLIT].to_list()


def shares(splits: list[str]) -> list[float]:
    return [splits.count(name) / len(splits) for name in SPLITS]


def test_random_depends_on_row_number_and_seed_alone() -> None:
    frame = pl.DataFrame({"a": range(20_000)})
    splits = assigned(frame, by="random", seed=1, fractions=EIGHT)
    assert shares(splits) == pytest.approx(EIGHT, abs=0.01)
    assert assigned(frame.with_columns(a=pl.lit("x")), by="random", seed=1, fractions=EIGHT) == splits
    assert assigned(frame[:500], by="random", seed=1, fractions=EIGHT) == splits[:500]
    other = assigned(frame, by="random", seed=2, fractions=EIGHT)
    agree = sum(a == b for a, b in zip(splits, other, strict=True)) / len(splits)
    assert agree == pytest.approx(0.66, abs=0.03), "independent: 0.8^2 + 2 * 0.1^2"


def test_random_is_pinned() -> None:
    """The same rows on every machine and version: a changed hash would silently change every result."""
    frame = pl.DataFrame({"a": range(40)})
    splits = assigned(frame, by="random", seed=1, fractions=[0.5, 0.25, 0.25])
    assert "".join(split[1] for split in splits) == PINNED_RANDOM


def test_hash_keeps_the_rows_of_a_key_together() -> None:
    frame = pl.DataFrame({"user": [f"u{i % 3000}" for i in range(9000)]})
    splits = assigned(frame, by="hash", column="user", seed=1, fractions=EIGHT)
    assert splits[:3000] == splits[3000:6000] == splits[6000:]
    assert shares(splits) == pytest.approx(EIGHT, abs=0.02)
    numbers = pl.DataFrame({"user": [float(i % 50) for i in range(100)]})
    texts = pl.DataFrame({"user": [str(i % 50) for i in range(100)]})
    rule = {"by": "hash", "column": "user", "seed": 4, "fractions": EIGHT}
    assert assigned(numbers, **rule) == assigned(texts, **rule)
    assert assigned(texts, **(rule | {"seed": 5})) != assigned(texts, **rule)


@pytest.mark.parametrize("as_text", [False, True])
def test_time_cuts_at_quantiles_and_keeps_an_instant_together(as_text: bool) -> None:
    times = [i * 7919 % 1000 // 3 for i in range(1000)]
    frame = pl.DataFrame({"t": times})
    splits = assigned(frame.cast(pl.String) if as_text else frame, by="time", column="t", fractions=EIGHT)
    assert shares(splits) == pytest.approx(EIGHT, abs=0.005)
    spans = {name: [t for t, split in zip(times, splits, strict=True) if split == name] for name in SPLITS}
    assert max(spans["train"]) < min(spans["valid"]) <= max(spans["valid"]) < min(spans["test"])


def test_cuts_are_numbers_or_dates() -> None:
    assert assigned(pl.DataFrame({"t": [1, 2, 3]}), by="time", column="t", cuts=[2, 3]) == list(SPLITS)
    days = [datetime(2024, 1, day, 12) for day in (1, 2, 3)]
    dates = {"by": "time", "column": "t", "cuts": ["2024-01-02", "2024-01-03"]}
    assert assigned(pl.DataFrame({"t": days}), **dates) == list(SPLITS)
    seconds = pl.DataFrame({"t": [1704110400 + 86400 * i for i in range(3)]})
    assert assigned(seconds, **dates, unit="s") == list(SPLITS)
    later = dates | {"cuts": ["2024-01-02T00:00-13:00", "2024-01-03"]}  # that is 13:00 in UTC
    assert assigned(seconds, **later, unit="s") == ["train", "train", "test"]
    texts = pl.DataFrame({"t": ["01/01/2024", "02/01/2024", "03/01/2024"]})
    assert assigned(texts, **dates, unit="%d/%m/%Y") == list(SPLITS)


def test_a_column_can_be_translated_and_train_can_give_valid() -> None:
    frame = pl.DataFrame({"day": [3, 4] * 5000})
    splits = assigned(frame, by="column", column="day", values={3: "train", 4: "test"}, valid_from_train=0.2, seed=1)
    assert set(splits[1::2]) == {"test"}
    assert splits[::2].count("valid") / 5000 == pytest.approx(0.2, abs=0.02)


def test_order_cuts_at_exact_rows_without_the_dropped_ones() -> None:
    times = [i * 7919 % 1009 // 50 for i in range(1009)]
    drops = ["no" if i % 7 == 3 else None for i in range(1009)]
    frame = pl.DataFrame({"t": times, DROP: drops}, schema={"t": pl.Int64, DROP: pl.String})
    splits = assigned(frame, by="order", column="t", fractions=EIGHT)
    ordered = sorted((i for i, drop in enumerate(drops) if drop is None), key=lambda i: times[i])
    train, valid = int(0.8 * len(ordered)), int(0.1 * len(ordered))
    assert [splits[i] for i in ordered] == (
        ["train"] * train + ["valid"] * valid + ["test"] * (len(ordered) - train - valid)
    )
    assert set(splits) == set(SPLITS)


@pytest.mark.parametrize("wrong", ["abc", 0.8, [0.8, "much", 0.1]])
def test_fractions_that_are_no_numbers_are_named(wrong: Any) -> None:
    with pytest.raises(UserError, match=r"split\.fractions"):
        with_split(pl.LazyFrame({"a": [1, 2, 3]}), {"by": "random", "fractions": wrong, "seed": 1})


def test_a_wide_table_is_not_listed_whole() -> None:
    frame = pl.LazyFrame({f"column{i}": [1] for i in range(3000)})
    with pytest.raises(UserError, match="There are 3,000") as error:
        with_split(frame, {"by": "column", "column": "colum7", "values": {}})
    assert "Nearest: column7" in str(error.value)
    assert len(str(error.value)) < 1000
