"""Numbers as bins or as scaled values; what is fitted on train and kept as JSON. NaN is missing.

Bins are (edge, next edge], cut at empirical quantiles of train. Above SAMPLE_NUMBERS the edges come from an evenly
spaced sample of at least half that size, which moves a cut by about 0.1 % of the ranks.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from fieldctr.data.fields.spelling import LARGEST

SAMPLE_NUMBERS = 1_000_000


class Binning(NamedTuple):
    """Ascending inner edges: k edges make k + 1 bins, whose ids are 1..k+1 in ascending order."""

    edges: list[float]

    numeric = False  # its ids say all

    def ids(self, x: np.ndarray) -> np.ndarray:
        """The bin of each number, 0 for NaN."""
        return np.where(np.isnan(x), 0, np.searchsorted(np.asarray(self.edges), x, side="left") + 1)

    def encoded(self, x: np.ndarray) -> tuple[np.ndarray, None]:
        """Ids, and no values."""
        return self.ids(x), None

    def texts(self) -> list[str]:
        """The bins as intervals."""
        ends = ["-inf", *(f"{edge:.6g}" for edge in self.edges), "inf"]
        return [f"({low}, {high}]" for low, high in pairwise(ends)]


class Scaling(NamedTuple):
    """x -> (x - mean) / sd."""

    mean: float
    sd: float

    numeric = True

    def encoded(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids: 1 for a number, 0 for none; and float32 values, 0 where there is none."""
        scaled = self.values(x)
        return ~np.isnan(scaled), np.nan_to_num(scaled, nan=0.0).astype(np.float32)

    def values(self, x: np.ndarray) -> np.ndarray:
        """The scaled numbers; NaN for NaN, and for what no float32 can hold."""
        scaled = (x - self.mean) / self.sd
        return np.where(np.abs(scaled) <= LARGEST, scaled, np.nan)


class Sample:
    """Every k-th number of a stream, k doubling whenever `limit` is exceeded: even spacing in bounded memory."""

    def __init__(self, limit: int = SAMPLE_NUMBERS) -> None:
        self.limit, self.step = limit, 1
        self.num_seen = 0
        self.parts = [np.empty(0)]

    def add(self, x: np.ndarray) -> None:
        """Take in the next numbers of the stream."""
        to_next = -self.num_seen % self.step  # numbers before the next one that is kept
        self.parts.append(x[to_next :: self.step])
        self.num_seen += len(x)
        while sum(map(len, self.parts)) > self.limit:
            self.parts, self.step = [np.concatenate(self.parts)[::2]], 2 * self.step

    def numbers(self) -> np.ndarray:
        return np.concatenate(self.parts)


def fit_bins(chunks: Iterable[np.ndarray], bins: int) -> Binning:
    """Edges that cut the numbers into at most `bins` parts of about equal size; ties fall into one bin."""
    sample = Sample()
    for x in chunks:
        sample.add(x[~np.isnan(x)])
    ordered = np.sort(sample.numbers())
    if not len(ordered):
        return Binning([])
    ranks = np.ceil(np.arange(1, bins) * len(ordered) / bins).astype(np.int64) - 1
    edges = np.unique(ordered[np.maximum(ranks, 0)])
    return Binning(edges[edges < ordered[-1]].tolist())  # an edge at the maximum would leave the last bin empty


def fit_scaling(chunks: Iterable[np.ndarray]) -> Scaling:
    """Mean and standard deviation of the numbers; a constant is only centred.

    Chunks are merged as in Chan, Golub, LeVeque (1979): a sum of squares would cancel for large means.
    """
    count, mean, square = 0, 0.0, 0.0  # square: sum of squared deviations
    for chunk in chunks:
        x = chunk[~np.isnan(chunk)]
        if len(x):
            delta, total = float(x.mean()) - mean, count + len(x)
            square += float(((x - x.mean()) ** 2).sum()) + delta**2 * count * len(x) / total
            mean, count = mean + delta * len(x) / total, total
    return Scaling(mean, (square / max(count, 1)) ** 0.5 or 1.0)
