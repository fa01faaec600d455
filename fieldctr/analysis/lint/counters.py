"""Counters that count the row's own label: how numbers move from row to row of one user or item, and what that says.

"Clicks so far", this row included, goes up where the row is a click. Only what has an order can go up: ids have none.
A row's neighbour is the one before it of the same user or item, in the order of the file; whether that order means
anything is not written anywhere, so a finding has to leave it out by itself: rows in no order look the same when they
are read from the last to the first, where a counter goes down behind its clicks.
Odds: Mantel and Haenszel 1959, within each label of the row before, so that clicks which come in runs are no evidence.
"""

import math
from typing import NamedTuple, Self

import numpy as np
import polars as pl

from fieldctr.analysis.lint.findings import SIGMAS
from fieldctr.data.dataset import Dataset
from fieldctr.data.encoding import VOCABULARY_FILE

ODDS = 4.0  # of a click where it goes up, over the odds elsewhere; also of going up at a click, over going down
CLOCK = 0.01  # share of moves between different users or items that go down, at most: it runs with the file
ALIKE, SAME_STEP = 0.5, 0.01  # share of a count's steps that are as long as the middle one, to so much
MISSED = 0.5  # of the click rate, at most, is that of the rows where an exact number does not go up
SHARP = 0.9  # of the share of clicks that rows which are left out for valid and test would leave where it goes up
BLOCK_SHARP = 0.8  # the same of a field that changes where a block of rows begins
STEPS = 1000  # kept of a block
FALL, STAY, RISE = 0, 1, 2


class Numbers(NamedTuple):
    """What of a table's fields can count: numbers, bins, and categories that are numbers."""

    tables: dict[int, np.ndarray]  # by position of a field: the number of each id, NaN for 0
    values: dict[int, tuple[int, int]]  # by position of a field: its id column and its value column
    exact: frozenset[int]  # those that are no bins: equal numbers are equal

    @classmethod
    def of(cls, dataset: Dataset) -> Self:
        """From the kinds of the fields and their vocabularies."""
        tables: dict[int, np.ndarray] = {}
        values: dict[int, tuple[int, int]] = {}
        schema, kinds = dataset.schema, {name: own["kind"] for name, own in dataset.facts["fields"].items()}
        words = _numbers(dataset, [name for name, kind in kinds.items() if kind in ("categorical", "log_square")])
        numeric = 0
        for i, (field, start) in enumerate(zip(schema.fields, schema.column_offsets, strict=True)):
            kind = kinds[field.name]
            if kind == "value":
                values[i] = (start, numeric)
            elif kind == "quantile":
                tables[i] = np.concatenate(([np.nan], np.arange(1.0, field.vocab_size)))
            elif field.name in words:
                tables[i] = np.full(field.vocab_size, np.nan)
                ids, number = words[field.name]
                tables[i][ids] = number
            numeric += field.numeric
        exact = frozenset(i for i in (*tables, *values) if kinds[schema.fields[i].name] in ("categorical", "value"))
        return cls(tables, values, exact)

    def rows(self, i: int, category: np.ndarray, ids: np.ndarray, values: np.ndarray | None) -> np.ndarray:
        """(n,) float64 of field i, NaN where it is missing or unseen, of rows given by categories, ids and values.

        What cannot count has its categories, which tell where it changes.
        """
        if i in self.tables:
            return self.tables[i][category]
        if i not in self.values:
            return np.where(category > 0, category, np.nan)
        column, own = self.values[i]
        assert values is not None
        return np.where(ids[:, column] > 0, values[:, own].astype(np.float64), np.nan)

    @property
    def fields(self) -> list[int]:
        return sorted({*self.tables, *self.values})


def _numbers(dataset: Dataset, names: list[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Ids and numbers of the fields whose known values are all finite numbers."""
    words = pl.scan_parquet(dataset.folder / VOCABULARY_FILE).filter(pl.col("field").is_in(names))
    number = pl.col("value").cast(pl.Float64, strict=False)
    words = words.select("field", "id", number=number)
    odd = words.filter(pl.col("number").is_finite().not_() | pl.col("number").is_null()).select("field").unique()
    table = words.join(odd, on="field", how="anti").collect().partition_by("field", as_dict=True)
    return {str(name): (own["id"].to_numpy(), own["number"].to_numpy()) for (name,), own in table.items()}


class Moves:
    """How fields move between neighbours: rows of one user or item, one behind the other."""

    def __init__(self, fields: list[int]) -> None:
        self.counts = {i: np.zeros((3, 2, 2), np.int64) for i in fields}  # fall | stay | rise, label before, label
        self.across = {i: np.zeros(3, np.int64) for i in fields}  # the same between rows of different users or items
        self.steps: dict[int, list[np.ndarray]] = {i: [] for i in fields}  # (s,) how far some of them rose

    def add(self, i: int, number: np.ndarray, key: np.ndarray, order: np.ndarray, clicked: np.ndarray) -> None:
        """Count a block. `key` (n,) names each row's user or item, -1 for nobody; `order` sorts the others by it."""
        move, known = _move(number)
        other = known & (key[1:] != key[:-1]) & (key[1:] >= 0) & (key[:-1] >= 0)
        self.across[i] += np.bincount(move[other], minlength=3)
        number, label = number[order], clicked[order]
        move, known = _move(number)
        known &= key[order][1:] == key[order][:-1]
        cell = 4 * move + 2 * label[:-1] + label[1:]
        self.counts[i] += np.bincount(cell[known], minlength=12).reshape(3, 2, 2)
        self.steps[i].append(np.diff(number)[known & (move == RISE)][:STEPS])


def _move(number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n - 1,) fall, stay or rise, and whether both numbers are known."""
    with np.errstate(invalid="ignore"):
        step = np.sign(np.diff(number))
    return np.nan_to_num(step).astype(np.int64) + 1, ~np.isnan(step)


class Evidence(NamedTuple):
    """What shows that a field counts the row's own label."""

    clicks: float  # share of the clicks where it goes up
    others: float  # share of the other rows
    odds: float  # of a click where it goes up, over those elsewhere


def counts_own_label(moves: Moves, i: int, *, exact: bool, rate: float, kept: float) -> Evidence | None:
    """Whether field i goes up at clicks as only a counter of them does. `kept`: share of all rows that train has."""
    table, across = moves.counts[i], moves.across[i]
    clock = across[RISE] > 0 and across[FALL] <= CLOCK * (across[FALL] + across[RISE])
    if clock or (exact and _one_way(table) and not _alike(moves.steps[i])):
        return None
    odds, sigmas = own_effect(table)
    other, _ = own_effect(mirrored(table))
    before, _ = own_effect(table.transpose(0, 2, 1))  # of a click in the row before: what counts earlier rows has this
    (down, _, up), rows = table[:, :, 1].sum(1), table.sum((1, 2))
    sharp = up >= SHARP * share_of_clicks(rate, kept) * rows[RISE]
    missed = table[:RISE, :, 1].sum() > MISSED * rate * rows[:RISE].sum()
    if (
        sigmas > SIGMAS
        and odds > max(ODDS, ODDS * other, before)
        and up >= ODDS * down
        and sharp
        and not (missed and exact)
    ):
        return Evidence(up / table[:, :, 1].sum(), table[RISE, :, 0].sum() / table[:, :, 0].sum(), odds)
    return None


def begins_blocks(moves: Moves, i: int, *, rate: float, kept: float) -> bool:
    """Whether field i changes where the clicks are, and often downwards: each click leads rows that belong to it.

    Negatives that were drawn for a click stand behind it; visits that begin with a click are the same. There the order
    of the rows makes everything that grows go up at clicks.
    """
    table = moves.counts[i]
    clicks, rows = table[:, :, 1].sum(1), table.sum((1, 2))
    changed = clicks[FALL] + clicks[RISE]
    sharp = changed >= BLOCK_SHARP * share_of_clicks(rate, kept) * (rows[FALL] + rows[RISE])
    return bool(sharp and clicks[STAY] <= MISSED * rate * rows[STAY] and 0 < clicks[FALL] * ODDS >= clicks[RISE])


def mirrored(table: np.ndarray) -> np.ndarray:
    """The moves (3, 2, 2) of the same rows, read from the last to the first."""
    return table[::-1].transpose(0, 2, 1)


def own_effect(table: np.ndarray) -> tuple[float, float]:
    """Odds of a click where the number rises, over those elsewhere, given the label before; and standard errors."""
    high = low = excess = variance = 0.0
    for before in (0, 1):
        (b, a), (d, c) = table[RISE, before].astype(float), table[:RISE, before].sum(0).astype(float)
        n = a + b + c + d
        if n > 1:
            high, low = high + a * d / n, low + b * c / n
            excess += a - (a + b) * (a + c) / n
            variance += (a + b) * (c + d) * (a + c) * (b + d) / (n * n * (n - 1))
    return (high + 0.5) / (low + 0.5), excess / math.sqrt(variance) if variance else 0.0


def share_of_clicks(rate: float, kept: float) -> float:
    """The share of clicks among the rows where a counter rises, if train has each row with probability `kept`.

    It also rises for the clicks of rows that are left out between two neighbours, of which there are 1 / kept - 1.
    """
    stays = (1 - rate) * kept / (1 - (1 - kept) * (1 - rate))
    return rate / (1 - stays)


def _one_way(table: np.ndarray) -> bool:
    """A count or a clock: it hardly ever goes down."""
    fall, _, rise = table.sum((1, 2))
    return bool(fall <= CLOCK * (fall + rise))


def _alike(blocks: list[np.ndarray]) -> bool:
    """Whether steps are of one size: a count goes by one, a clock by whatever time has passed."""
    steps = np.concatenate([np.empty(0), *blocks])
    return not len(steps) or bool((np.abs(steps / np.median(steps) - 1) < SAME_STEP).mean() >= ALIKE)
