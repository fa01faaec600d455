"""Counters of the row's own label are found however they are spelt, and honest tables of many kinds have none."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fieldctr.analysis.lint.counters import Moves, counts_own_label, mirrored, own_effect, share_of_clicks
from fieldctr.analysis.lint.leaks import moves_with_label
from fieldctr.analysis.lint.survey import survey
from fieldctr.data.dataset import Dataset
from fieldctr.data.encode import encode
from fieldctr.data.fields.specs import field_specs
from fieldctr.data.table import Table

USERS, ITEMS = 200, 80
ORDERED: list[dict[str, Any]] = [{}, {"kind": "quantile"}, {"kind": "value"}]
LOGS = {}  # by name, what makes an honest table


def log(make: Callable[[np.random.Generator], pl.DataFrame]) -> Callable[[np.random.Generator], pl.DataFrame]:
    LOGS[make.__name__] = make
    return make


def clicks(rng: np.random.Generator, logit: np.ndarray) -> np.ndarray:
    return (rng.random(len(logit)) < 1 / (1 + np.exp(-logit))).astype(int)


def taste(rng: np.random.Generator, user: np.ndarray) -> np.ndarray:
    """Users differ much."""
    return rng.normal(-1, 1.5, USERS)[user]


@log
def comes_back(rng: np.random.Generator) -> pl.DataFrame:
    """A user sees the item that he clicked again, with odds that grow, and another one where he did not."""
    user, item, label = np.sort(rng.integers(0, USERS, 8000)), rng.integers(0, ITEMS, 8000), np.zeros(8000, int)
    for i in range(8000):
        again = i > 0 and user[i] == user[i - 1] and label[i - 1] and rng.random() < 0.8
        item[i] = item[i - 1] if again else item[i]
        label[i] = rng.random() < (0.8 if again else 0.15)
    return pl.DataFrame({"user": user, "item": item, "label": label, "size": (item * 7) % 31})


@log
def until_clicked(rng: np.random.Generator) -> pl.DataFrame:
    """An item is shown to a user until it is clicked: the next row has another one."""
    user, item, label = np.sort(rng.integers(0, USERS, 8000)), rng.integers(0, ITEMS, 8000), np.zeros(8000, int)
    for i in range(8000):
        if i > 0 and user[i] == user[i - 1] and not label[i - 1]:
            item[i] = item[i - 1]
        label[i] = rng.random() < 0.3
    return pl.DataFrame({"user": user, "item": item, "label": label, "size": (item * 7) % 31})


@log
def no_order(rng: np.random.Generator) -> pl.DataFrame:
    """Rows as they come, with numbers that predict, and with a true counter that says nothing once it is shuffled."""
    user, item = rng.integers(0, USERS, 8000), rng.integers(0, ITEMS, 8000)
    score = rng.normal(size=8000)
    frame = pl.DataFrame({"user": user, "item": item, "label": clicks(rng, 3 * score - 1), "score": score.round(1)})
    frame = frame.with_columns(strong=(score > 0.3).astype(int), count=pl.col("label").cum_sum().over("user"))
    return frame.sample(fraction=1, shuffle=True, seed=int(rng.integers(1000)))


@log
def sessions(rng: np.random.Generator) -> pl.DataFrame:
    """Visits in the order of time: the first row clicks most, a click ends half of the visits."""
    rows = []
    for number, user in enumerate(np.sort(rng.integers(0, USERS, 1500))):
        for position in range(1, rng.integers(3, 9)):
            click = int(rng.random() < (0.6 if position == 1 else 0.2))
            rows.append((user, int(rng.integers(ITEMS)), number, position, click))
            if click and rng.random() < 0.5:
                break
    frame = pl.DataFrame(rows, schema=["user", "item", "session", "position", "label"], orient="row")
    visit = pl.col("session").rank("dense").over("user")
    seen, past = pl.int_range(pl.len()).over("user"), pl.col("label").cum_sum().over("session") - pl.col("label")
    return frame.with_columns(visit=visit, seen=seen, clicked_in_session=past)


@log
def sessions_that_end_in_a_click(rng: np.random.Generator) -> pl.DataFrame:
    """The last row of nearly each visit is a click, as in a funnel; visits of all users side by side."""
    rows = []
    for number, user in enumerate(rng.integers(0, USERS, 2000)):
        length, clicked = int(rng.integers(2, 6)), rng.random() < 0.95
        for position in range(1, length + 1):
            rows.append((user, int(rng.integers(ITEMS)), number, position, int(clicked and position == length)))
    return pl.DataFrame(rows, schema=["user", "item", "session", "position", "label"], orient="row")


@log
def sampled_negatives(rng: np.random.Generator) -> pl.DataFrame:
    """Each click is followed by three rows drawn for it, with the user and the moment of the click."""
    user, moment = rng.integers(0, USERS, 2000), np.sort(rng.integers(0, 90 * 24, 2000))
    frame = pl.DataFrame({"user": user, "moment": moment, "day": moment // 24, "hour": moment % 24})
    frame = frame.select(pl.all().repeat_by(4).explode())
    return frame.with_columns(item=rng.integers(0, ITEMS, 8000), label=(pl.int_range(8000) % 4 == 0).cast(pl.Int8))


@log
def sampled_negatives_by_user(rng: np.random.Generator) -> pl.DataFrame:
    return sampled_negatives(rng).sort("user", maintain_order=True).drop("day")


@log
def runs_of_clicks(rng: np.random.Generator) -> pl.DataFrame:
    """Moods: clicks come in runs, so that even the count of earlier clicks goes up near clicks."""
    user, label = np.repeat(np.arange(USERS), 40), np.zeros(8000, int)
    for i in range(8000):
        label[i] = rng.random() < (0.85 if i % 40 and label[i - 1] else 0.1)
    frame = pl.DataFrame({"user": user, "item": rng.integers(0, ITEMS, 8000), "label": label})
    past = pl.col("label").cum_sum().over("user") - pl.col("label")
    return frame.with_columns(past=past, share=past / (1 + pl.int_range(40).over("user").cast(pl.Float64)))


@log
def users_that_differ(rng: np.random.Generator) -> pl.DataFrame:
    """Side by side in time, with counts of what happened before."""
    user, item = rng.integers(0, USERS, 8000), (ITEMS * rng.random(8000) ** 1.5).astype(int)
    frame = pl.DataFrame({"user": user, "item": item, "label": clicks(rng, taste(rng, user))})
    for key in ("user", "item"):
        earlier = pl.col("label").cum_sum().over(key) - pl.col("label")
        frame = frame.with_columns(
            earlier.alias(f"{key}_clicks"), pl.int_range(pl.len()).over(key).alias(f"{key}_rows")
        )
    return frame.with_columns(time=pl.int_range(8000) // 50)


def found(frame: pl.DataFrame, folder: Path, kind: dict[str, Any], *, random: bool = True) -> list[str]:
    """The fields that the rule names; all fields but user and item are of one kind."""
    rows = len(frame)
    part = np.random.default_rng(12345).random(rows) if random else np.arange(rows) / rows
    split = np.where(part < 0.8, "train", np.where(part < 0.9, "valid", "test"))
    folder.mkdir(exist_ok=True)
    names = [name for name in frame.columns if name != "label"]
    fields = {name: {} if name in ("user", "item") else kind for name in names}
    encode(Table.named(frame.with_columns(split=split).lazy()), field_specs(fields, 1), folder, group=None)
    return [finding.field for finding in moves_with_label(survey(Dataset.load(folder, name="log")))]


@pytest.mark.slow
@pytest.mark.parametrize("make", LOGS.values(), ids=LOGS)
@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_found_in_honest_logs(make: Callable[..., pl.DataFrame], seed: int, tmp_path: Path) -> None:
    frame = make(np.random.default_rng(seed))
    for i, kind in enumerate(ORDERED):
        for order in (1, -1):
            assert found(frame[::order], tmp_path / f"{i} {order}", kind, random=seed % 2 == 0) == [], (kind, order)


PLANTED = {
    "user": pl.col("label").cum_sum().over("user"),
    "item": pl.col("label").cum_sum().over("item"),
    "behind 1": 1 + pl.col("label").cum_sum().over("user"),
    "rate": (pl.col("label").cum_sum().over("user") / pl.int_range(1, pl.len() + 1).over("user")).round(4),
    "window": pl.col("label").rolling_sum(20, min_samples=1).over("user"),
}


@pytest.mark.slow
@pytest.mark.parametrize("plant", PLANTED)
@pytest.mark.parametrize("make", ["users_that_differ", "runs_of_clicks", "comes_back", "sessions"])
def test_planted_counters_are_found_and_nothing_else(make: str, plant: str, tmp_path: Path) -> None:
    frame = LOGS[make](np.random.default_rng(5)).with_columns(planted=PLANTED[plant])
    for i, kind in enumerate(ORDERED):
        for random in (True, False):
            assert found(frame, tmp_path / f"{i} {random}", kind, random=random) == ["planted"], (kind, random)


@pytest.mark.parametrize("seed", range(10))
def test_the_effect_is_its_definition(seed: int) -> None:
    """Odds by Mantel and Haenszel and the statistic of Cochran, from rows one by one."""
    rng = np.random.default_rng(seed)
    move, before, label = rng.integers(0, 3, 300), rng.integers(0, 2, 300), rng.integers(0, 2, 300)
    table = np.zeros((3, 2, 2), int)
    np.add.at(table, (move, before, label), 1)
    high = low = 0.5
    excess = variance = 0.0
    for p in (0, 1):
        rose, clicked = (move == 2)[before == p], (label == 1)[before == p]
        n = len(rose)
        high += (rose & clicked).sum() * (~rose & ~clicked).sum() / n
        low += (rose & ~clicked).sum() * (~rose & clicked).sum() / n
        excess += (rose & clicked).sum() - rose.sum() * clicked.mean()
        variance += rose.sum() * (~rose).sum() * clicked.mean() * (~clicked).mean() / (n - 1)
    assert own_effect(table) == pytest.approx((high / low, excess / variance**0.5))


@pytest.mark.parametrize("seed", range(5))
def test_moves_are_those_of_neighbours_of_one_key(seed: int) -> None:
    rng = np.random.default_rng(seed)
    key, number = rng.integers(-1, 4, 200), np.where(rng.random(200) < 0.2, np.nan, rng.integers(0, 5, 200))
    clicked = rng.random(200) < 0.4
    moves = Moves([0])
    order = np.argsort(key, kind="stable")
    moves.add(0, number, key, order[(key < 0).sum() :], clicked)
    expected, across, last = np.zeros((3, 2, 2), int), np.zeros(3, int), {}
    for i in range(200):
        j = last.get(key[i])
        if key[i] >= 0 and j is not None and not np.isnan(number[i] - number[j]):
            expected[int(np.sign(number[i] - number[j])) + 1, int(clicked[j]), int(clicked[i])] += 1
        if i and min(key[i], key[i - 1]) >= 0 and key[i] != key[i - 1] and not np.isnan(number[i] - number[i - 1]):
            across[int(np.sign(number[i] - number[i - 1])) + 1] += 1
        last[key[i]] = i
    np.testing.assert_array_equal(moves.counts[0], expected)
    np.testing.assert_array_equal(moves.across[0], across)
    backwards = Moves([0])
    order = np.argsort(key[::-1], kind="stable")
    backwards.add(0, number[::-1], key[::-1], order[(key < 0).sum() :], clicked[::-1])
    np.testing.assert_array_equal(backwards.counts[0], mirrored(expected))


@pytest.mark.parametrize("kept", [1.0, 0.8, 0.5])
@pytest.mark.parametrize("rate", [0.05, 0.3, 0.7])
def test_rows_that_are_left_out_hide_clicks(kept: float, rate: float) -> None:
    rng = np.random.default_rng(1)
    label = rng.random(200_000) < rate
    count, here = np.cumsum(label), rng.random(200_000) < kept
    rises = np.diff(count[here]) > 0
    assert label[here][1:][rises].mean() == pytest.approx(share_of_clicks(rate, kept), abs=0.02)


def test_too_few_rows_are_no_evidence() -> None:
    moves = Moves([0])
    number = np.array([0.0, 1.0, 1.0, 2.0])
    moves.add(0, number, np.zeros(4, int), np.arange(4), np.array([False, True, False, True]))
    assert counts_own_label(moves, 0, exact=True, rate=0.5, kept=1.0) is None
