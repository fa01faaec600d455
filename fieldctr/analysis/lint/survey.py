"""What the rules of lint look at: counts of a prepared table, taken in blocks.

Two passes over the ids. The first counts every value by split and label; the second, over train only, follows the rows
of one user or item at a time, on at most KEY_ROWS rows of each. Id 0, missing or unseen, is nobody: no row without a
known user is followed, and no field is the same in two rows that lack it.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from fieldctr.analysis.discretizer import Discretizer
from fieldctr.analysis.lint.counters import Moves, Numbers
from fieldctr.data.dataset import Dataset, Split
from fieldctr.data.fields.specs import DERIVED
from fieldctr.data.table import SPLITS

KEYS = 8  # fields with the most values that stand for users and items
KEY_VALUES = 50  # that such a field has at least
KEY_REPEATS = 3  # train rows per value, at least
KEY_HEAD = 0.1  # of the rows, at most, that one value holds: no user or item is so frequent
KEY_ROWS = 1_000_000  # followed per key: all rows of some of its values, spread over the frequent and the rare
ROWS_HASHED = 10_000_000  # of train; beyond, rows are compared on a part that their hash selects


class KeyFacts(NamedTuple):
    """How the other fields behave within the rows of one value of a key field."""

    clicks: np.ndarray  # (values,) per followed value of the key
    rows: np.ndarray  # (values,)
    first: np.ndarray  # (F, values) category in the first of its rows that has one, 0 before
    known: np.ndarray  # (F,) rows that have a category
    agreeing: np.ndarray  # (F,) those whose category is the first one
    moves: Moves  # from one row to the next of the same value


@dataclass(frozen=True)
class Survey:
    """Counts per field, split, label and category, and what the second pass saw."""

    dataset: Dataset
    discretizer: Discretizer
    counts: tuple[np.ndarray, ...]  # per field (3, 2, categories) int64: split, label
    sums: tuple[np.ndarray, ...]  # the same of sample weights, 1 in the mean over train; counts where there are none
    numbers: Numbers  # of the fields that can count
    keys: dict[int, KeyFacts]  # by position of the key field
    repeated: dict[str, float]  # by split: share of its rows that stand in train too (of train: twice), value for value

    @property
    def names(self) -> list[str]:
        return [field.name for field in self.dataset.schema.fields]

    @property
    def facts(self) -> dict[str, Any]:
        """Per field what preparation counted: kind, vocab_size, missing, unseen."""
        return self.dataset.facts["fields"]

    @cached_property
    def clicks(self) -> np.ndarray:
        """(3,) clicks per split."""
        return self.counts[0][:, 1].sum(1)

    @cached_property
    def rate(self) -> np.ndarray:
        """(3,) click rate per split, by sample weights."""
        return self.sums[0][:, 1].sum(1) / self.sums[0].sum((1, 2))

    @cached_property
    def rows(self) -> np.ndarray:
        """(3,) rows per split."""
        return self.counts[0].sum((1, 2))


def survey(dataset: Dataset) -> Survey:
    """Read the table twice."""
    discretizer = Discretizer.of(dataset.schema, dataset.train)
    splits = (dataset.train, dataset.valid, dataset.test)
    counts = tuple(np.zeros((len(SPLITS), 2, size), np.int64) for size in discretizer.sizes)
    mean, sums = dataset.train.mean_weight, counts
    if mean is not None:
        sums = tuple(np.zeros(own.shape) for own in counts)
    hashes: list[list[np.ndarray]] = [[], [], []]
    keep = 1 + len(dataset.train) // ROWS_HASHED
    for s, split in enumerate(splits):
        for rows, categories in discretizer.blocks(split):
            label = split.label[rows] > 0.5
            for own, category in zip(counts, categories, strict=True):
                size = own.shape[2]
                own[s] += np.bincount(category + size * label, minlength=2 * size).reshape(2, size)
            if mean is not None and split.weight is not None:
                for own, category in zip(sums, categories, strict=True):
                    size = own.shape[2]
                    weight = np.bincount(category + size * label, split.weight[rows] / mean, 2 * size)
                    own[s] += weight.reshape(2, size)
            row_hash = hash_rows(split, rows)
            hashes[s].append(row_hash[row_hash % np.uint64(keep) == 0])
    known = np.sort(np.concatenate(hashes[0]))
    repeated = {name: _share_in(np.concatenate(hashes[s]), known, 1 + (s == 0)) for s, name in enumerate(SPLITS)}
    numbers = Numbers.of(dataset)
    return Survey(dataset, discretizer, counts, sums, numbers, follow(dataset, discretizer, counts, numbers), repeated)


def hash_rows(split: Split, rows: slice) -> np.ndarray:
    """(n,) uint64: equal for rows of equal ids and values, whatever their histories.

    Random odd multipliers: two rows collide once in 2^60.
    """
    parts = [split.ids[rows]] + ([] if split.values is None else [split.values[rows].view(np.int32)])
    rng = np.random.default_rng(0)
    total = np.zeros(len(parts[0]), np.uint64)
    for column in (column for part in parts for column in part.T):
        total += column.astype(np.uint64) * (rng.integers(2**63, dtype=np.uint64) * np.uint64(2) + np.uint64(1))
    return total ^ (total >> np.uint64(32))


def _share_in(hashes: np.ndarray, known: np.ndarray, times: int) -> float:
    """Share of the hashes that stand at least so often among the sorted known ones."""
    often = np.searchsorted(known, hashes, "right") - np.searchsorted(known, hashes, "left") >= times
    return float(often.mean()) if len(hashes) else 0.0


def key_fields(discretizer: Discretizer, counts: tuple[np.ndarray, ...]) -> list[int]:
    """Positions of the fields that stand for users and items: many values, each in several rows."""
    seen = {}
    for i, (field, own) in enumerate(zip(discretizer.schema.fields, counts, strict=True)):
        per_value = own[0, :, 1:].sum(0)
        values, rows = int(np.count_nonzero(per_value)), int(per_value.sum())
        plain = field.width == 1 and not field.numeric
        if plain and values >= KEY_VALUES and rows >= KEY_REPEATS * values and per_value.max() <= KEY_HEAD * rows:
            seen[i] = values
    return sorted(seen, key=lambda i: -seen[i])[:KEYS]


def follow(
    dataset: Dataset, discretizer: Discretizer, counts: tuple[np.ndarray, ...], numbers: Numbers
) -> dict[int, KeyFacts]:
    """The second pass over train: the rows of one user or item after the other."""
    positions = {key: _followed(counts[key][0].sum(0)) for key in key_fields(discretizer, counts)}
    num_fields, facts, train = dataset.schema.num_fields, {}, dataset.train
    names = [field.name for field in dataset.schema.fields]
    derived = {name for name, own in dataset.facts["fields"].items() if own["kind"] in DERIVED}  # of earlier rows
    for key, position in positions.items():
        size = int(position.max()) + 1
        shapes = (size, size, (num_fields, size), num_fields, num_fields)
        clicks, rows, first, known, agreeing = (np.zeros(shape, np.int64) for shape in shapes)
        others = [i for i in range(num_fields) if i != key and names[i] not in derived]
        facts[key] = KeyFacts(clicks, rows, first, known, agreeing, Moves(others))
    for rows, categories in discretizer.blocks(train):
        clicked = train.label[rows] > 0.5
        values = None if train.values is None else train.values[rows]
        followed = {i for own in facts.values() for i in own.moves.counts}
        number = {i: numbers.rows(i, categories[i], train.ids[rows], values) for i in followed}
        for key, position in positions.items():
            _follow_block(facts[key], position[categories[key]], categories, number, clicked)
    return facts


def _followed(count: np.ndarray) -> np.ndarray:
    """(categories,) position of each followed value, -1 for the others: every k-th id, in the order of frequency."""
    step = 1 + int(count[1:].sum()) // KEY_ROWS
    chosen = 1 + np.flatnonzero(count[1:])[::step]
    position = np.full(len(count), -1, np.int32)
    position[chosen] = np.arange(len(chosen), dtype=np.int32)
    return position


def _follow_block(
    facts: KeyFacts, position: np.ndarray, categories: np.ndarray, number: dict[int, np.ndarray], clicked: np.ndarray
) -> None:
    order = np.argsort(position, kind="stable")
    order = order[np.searchsorted(position[order], 0) :]
    key = position[order]
    facts.rows[:] += np.bincount(key, minlength=len(facts.rows))
    facts.clicks[:] += np.bincount(key[clicked[order]], minlength=len(facts.rows))
    for i, category in enumerate(categories):
        own, first = category[order], facts.first[i]
        seen, own = key[own > 0], own[own > 0]
        start = np.flatnonzero(np.diff(seen, prepend=-1))
        fresh = start[first[seen[start]] == 0]
        first[seen[fresh]] = own[fresh]
        facts.known[i] += len(own)
        facts.agreeing[i] += np.count_nonzero(own == first[seen])
    for i in facts.moves.counts:
        facts.moves.add(i, number[i], position, order, clicked)


def fixed_by(facts: KeyFacts, key: int) -> list[int]:
    """Fields with one value per value of the key, in 99 % of the rows that have one; in half of all rows at least."""
    same = (facts.agreeing >= 0.99 * facts.known) & (facts.known >= 0.5 * facts.rows.sum())
    return [i for i in np.flatnonzero(same).tolist() if i != key]


def agreement(facts: KeyFacts, i: int) -> float:
    """Share of the rows with a value of field i where it is the first one of their key."""
    return float(facts.agreeing[i] / max(1, facts.known[i]))
