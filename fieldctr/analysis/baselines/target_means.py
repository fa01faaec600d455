"""Click rates of features and of crossed features: smoothed, and out of fold for the rows that they come from.

mean = (clicks + a prior) / (rows + a), `a` rows at the prior's rate: Micci-Barreca, SIGKDD Explorations 2001, eq. 3.
A train row's mean comes from the other folds: with its own label in it, a column of random ids would predict.
Where samples have weights, rows and clicks are sums of weights, which are 1 in the mean over train.
"""

from typing import NamedTuple

import numpy as np

from fieldctr.analysis.discretizer import Discretizer
from fieldctr.data.dataset import Dataset, Split
from fieldctr.data.table import SPLITS

FOLDS = 5
BySplit = dict[str, np.ndarray]


class Discretized(NamedTuple):
    """A table in memory, one category per field and row."""

    categories: BySplit  # (F, n) int32
    label: BySplit  # (n,) float32
    sizes: tuple[int, ...]  # categories of each field
    weight: BySplit | None = None  # (n,) float64 sample weights of mean 1 in train; None: each row counts once

    @property
    def rate(self) -> float:
        """Click rate in train."""
        return float(np.average(self.label["train"].astype(np.float64), weights=self.weight_of("train")))

    def weight_of(self, split: str) -> np.ndarray | None:
        """(n,), or None where each row counts once."""
        return None if self.weight is None else self.weight[split]

    def thinned(self, rows: int) -> "Discretized":
        """At most about `rows` rows of each split, evenly spaced."""
        steps = {name: max(1, len(label) // rows) for name, label in self.label.items()}
        categories = {name: categories[:, :: steps[name]] for name, categories in self.categories.items()}
        label, weight = (
            part and {name: own[:: steps[name]] for name, own in part.items()} for part in (self.label, self.weight)
        )
        return Discretized(categories, label or {}, self.sizes, weight)


def discretize(dataset: Dataset, *, train_rows: int) -> Discretized:
    """The table with about `train_rows` train rows at most, evenly spaced; 4 bytes per field and row."""
    discretizer = Discretizer.of(dataset.schema, dataset.train)
    splits = dict(zip(SPLITS, (dataset.train, dataset.valid, dataset.test), strict=True))
    steps = dict.fromkeys(SPLITS, 1) | {"train": max(1, len(dataset.train) // train_rows)}
    categories = {name: _every(discretizer, split, steps[name]) for name, split in splits.items()}
    label = {name: np.array(split.label[:: steps[name]]) for name, split in splits.items()}
    weight = {name: split.weight[:: steps[name]] for name, split in splits.items() if split.weight is not None}
    mean = float(weight["train"].mean(dtype=np.float64)) if weight else 1.0
    return Discretized(categories, label, discretizer.sizes, {name: own / mean for name, own in weight.items()} or None)


def _every(discretizer: Discretizer, split: Split, step: int) -> np.ndarray:
    return np.concatenate(
        [categories for _, categories in discretizer.blocks(split.take(slice(None, None, step)))], axis=1
    )


class Cells(NamedTuple):
    """The rows of a table by the values of one field or of two."""

    index: BySplit  # (n,) which cell; the last one holds what train lacks
    size: int


def keys(table: Discretized, fields: tuple[int, ...]) -> BySplit:
    """(n,) int64 that tells the values of one field, or of two together, apart."""
    key = {name: categories[fields[0]].astype(np.int64) for name, categories in table.categories.items()}
    for field in fields[1:]:
        key = {name: own * table.sizes[field] + table.categories[name][field] for name, own in key.items()}
    return key


def cells(table: Discretized, fields: tuple[int, ...]) -> Cells:
    """One cell per value in train of a field, or per pair of values."""
    key = keys(table, fields)
    in_train = np.unique(key["train"])
    index = {}
    for name, own in key.items():
        position = np.minimum(np.searchsorted(in_train, own), len(in_train) - 1)
        index[name] = np.where(in_train[position] == own, position, len(in_train))
    return Cells(index, len(in_train) + 1)


class Statistic(NamedTuple):
    """What the train labels say about each row's cell."""

    mean: BySplit  # (n,) smoothed click rate
    count: BySplit  # (n,) train rows behind it, those of other folds for a train row


def statistic(table: Discretized, cell: Cells, prior: BySplit | float, *, smoothing: float, seed: int) -> Statistic:
    """From all train rows for valid and test, out of FOLDS seeded folds for train; `prior` per row or one for all."""
    label, index, weight = table.label["train"], cell.index["train"], table.weight_of("train")
    own_rows = np.ones(len(label)) if weight is None else weight
    fold = np.random.default_rng(seed).permutation(len(label)) % FOLDS
    rows, clicks = (
        np.bincount(fold * cell.size + index, sums, FOLDS * cell.size).reshape(FOLDS, cell.size)
        for sums in (own_rows, own_rows * label)
    )
    count, sums = {}, {}
    for name, own in cell.index.items():
        count[name], sums[name] = rows.sum(0)[own].astype(float), clicks.sum(0)[own]
    count["train"] -= rows[fold, index]
    sums["train"] -= clicks[fold, index]
    priors = prior if isinstance(prior, dict) else dict.fromkeys(count, prior)
    mean = {name: (sums[name] + smoothing * priors[name]) / (count[name] + smoothing) for name in count}
    return Statistic(mean, count)


def mean_of(table: Discretized, cell: Cells, split: str, *, smoothing: float) -> np.ndarray:
    """(n,) click rate in train of the cells of a split other than train, drawn towards the overall rate."""
    weight, label = table.weight_of("train"), table.label["train"]
    rows = np.bincount(cell.index["train"], weight, minlength=cell.size)
    clicks = np.bincount(cell.index["train"], label if weight is None else weight * label, minlength=cell.size)
    return ((clicks + smoothing * table.rate) / (rows + smoothing))[cell.index[split]]


def added(first: Statistic, second: Statistic, rate: float) -> BySplit:
    """What two fields say together if their effects just add, in logits: the prior of a pair's cells."""
    return {
        name: sigmoid(logit(first.mean[name]) + logit(second.mean[name]) - logit(np.asarray(rate)))
        for name in first.mean
    }


def logit(p: np.ndarray) -> np.ndarray:
    return np.log(p) - np.log1p(-p)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))
