"""Arms against one another in one metric: their values by seed, and the covariance that their rows give them.

What is estimated: the difference between two arms' means over the seeds that both have, on the population that the
test rows were drawn from. The error of rows is that of the seed-averaged effects of each row (for AUC: of its
seed-averaged placement): what another sample of users would change of these very runs, averaged. It is no average of
the errors of single seeds, which would be larger.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fieldctr.analysis.comparison.clusters import Sampling, error_of, sampling, strata_of
from fieldctr.analysis.comparison.doubt import (
    Difference,
    Error,
    detectable,
    equivalence,
    holm,
    over_seeds,
    together,
    with_interval,
)
from fieldctr.analysis.comparison.effects import METRICS, Effects, Rows

Scores = Mapping[str, Mapping[int, Callable[[], np.ndarray]]]  # by arm and seed what gives the logits (n,)


class Pair(NamedTuple):
    """An arm minus another one."""

    arm: str
    against: str
    gap: Difference
    error_rows: float
    error_seeds: float | None  # None below two shared seeds
    num_seeds: int
    detectable: float
    equivalence: float


class Measured(NamedTuple):
    """A metric of all arms."""

    metric: str
    values: dict[str, dict[int, float]]
    columns: list[tuple[str, int | None]]  # of the covariance: an arm's mean over seeds, or one of its runs
    sampling: Sampling

    def mean(self, arm: str) -> float:
        return float(np.mean(list(self.values[arm].values())))

    def pair(self, arm: str, against: str, *, level: float) -> Pair:
        """Over the seeds that both have; over all seeds of both, by rows alone, where they share none."""
        a, b = self.values[against], self.values[arm]
        shared = [seed for seed in b if seed in a]
        of_a, of_b = ([a[seed] for seed in shared or a], [b[seed] for seed in shared or b])
        contrast = self._weights(arm, shared or list(b)) - self._weights(against, shared or list(a))
        rows = Error(error_of(self.sampling.covariance, contrast), self.sampling.freedom)
        seeds = over_seeds(of_a, of_b) if len(shared) > 1 else None
        error = rows if seeds is None else together([rows, seeds])
        gap = float(np.mean(of_b) - np.mean(of_a))
        return Pair(
            arm,
            against,
            with_interval(gap, error, level=level),
            rows.error,
            None if seeds is None else seeds.error,
            len(shared),
            detectable(error, level=level),
            equivalence(gap, error, level=level),
        )

    def _weights(self, arm: str, seeds: Sequence[int]) -> np.ndarray:
        chosen = [name == arm and (seed is None or seed in seeds) for name, seed in self.columns]
        return np.array(chosen, np.float64) / sum(chosen)


def measured(metric: str, rows: Rows, scores: Scores) -> Measured:
    """Read each run's scores once. Where all arms have the same seeds, a row's effects are kept as means over them."""
    strata_of(metric, rows)  # refuses what has no error, before it is computed
    compute = METRICS[metric].effects
    seeds = [list(own) for own in scores.values()]
    alike = all(own == seeds[0] for own in seeds)
    names = list(scores)
    columns = [(name, seed) for name in names for seed in ([None] if alike else scores[name])]
    effects = np.zeros((len(columns), len(rows.clicked)))
    values: dict[str, dict[int, float]] = {name: {} for name in names}
    for name in names:
        for seed, load in scores[name].items():
            found: Effects = compute(rows, load())
            values[name][seed] = found.value
            column = columns.index((name, None if alike else seed))
            effects[column] += found.row / (len(scores[name]) if alike else 1)
    return Measured(metric, values, columns, sampling(metric, rows, effects))


def groups(found: Measured, *, level: float) -> list[list[str]]:
    """Arms from best to worst: those of a group are not told apart from its best, after Holm over what was left."""
    sign = METRICS[found.metric].better
    left = sorted(found.values, key=lambda arm: -sign * found.mean(arm))
    grouped = []
    while left:
        best, *others = left
        adjusted = holm([found.pair(arm, best, level=level).gap.p for arm in others])
        apart = {arm for arm, p in zip(others, adjusted, strict=True) if p < 1 - level}
        grouped.append([arm for arm in left if arm not in apart])
        left = [arm for arm in left if arm in apart]
    return grouped


def family(found: Measured, against: str, *, level: float) -> list[Pair]:
    """Every other arm minus the reference."""
    return [found.pair(arm, against, level=level) for arm in found.values if arm != against]
