"""Whether p, intervals and powers are what they say, on synthetic test sets whose truth is known. Seeds are fixed."""

from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
from scipy import stats

from fieldctr.analysis.comparison.clusters import clusters_of
from fieldctr.analysis.comparison.doubt import Error, detectable
from fieldctr.analysis.comparison.effects import Rows
from fieldctr.analysis.comparison.pairs import Pair, measured

TRIALS, FEWER = 1000, 500  # of AUC, of other metrics
METRICS = ("auc", "logloss", "gauc", "ne", "ece")


class World(NamedTuple):
    """How rows and scores arise: normal scores, a shift for clicks; users click often or rarely, and mislead scores."""

    users: int = 60
    rows: int = 8  # of a user, at most
    shift: float = 1.0  # of a click's score, in sd of a score within a user
    gain: float = 0.0  # of b's shift
    taste: float = 0.0  # sd over users of each score's own mistake
    noise: float = 0.6  # sd of each score's own mistake, by row


def drawn(world: World, rng: np.random.Generator) -> tuple[Rows, np.ndarray]:
    sizes = rng.integers(2, world.rows + 1, world.users)
    group = np.repeat(np.arange(1, world.users + 1), sizes).astype(np.int32)
    n = len(group)
    clicked = rng.random(n) < 1 / (1 + np.exp(0.5 - 2 * rng.normal(size=world.users + 1)[group]))
    own = world.taste * rng.normal(size=(2, world.users + 1))[:, group] + world.noise * rng.normal(size=(2, n))
    shift = np.array([[world.shift], [world.shift + world.gain]])
    scores = rng.normal(size=n) + shift * clicked + own - 0.9
    return Rows(clicked, np.ones(n), group, clusters_of(group)), scores.astype(np.float32)


def pair(metric: str, rows: Rows, scores: np.ndarray) -> Pair:
    found = measured(metric, rows, {"a": {1: lambda: scores[0]}, "b": {1: lambda: scores[1]}})
    return found.pair("b", "a", level=0.95)


@cache
def trials(world: World, clustered: bool, metric: str, count: int = 0) -> list[Pair]:
    count = count or (TRIALS if metric == "auc" else FEWER)
    rng = np.random.default_rng(20)
    found = []
    for _ in range(count):
        rows, scores = drawn(world, rng)
        found.append(pair(metric, rows if clustered else rows._replace(cluster=None), scores))
    return found


NULL_ROWS = World(users=60)
NULL_USERS = World(users=60, taste=0.8)


def uniform(pairs: list[Pair]) -> float:
    """p of Kolmogorov and Smirnov that these p are uniform."""
    return float(stats.kstest([one.gap.p for one in pairs], "uniform").pvalue)


@pytest.mark.parametrize("metric", METRICS[:4])
def test_p_is_uniform_between_equals_of_independent_rows(metric: str) -> None:
    assert uniform(trials(NULL_ROWS, metric == "gauc", metric)) > 0.02


@pytest.mark.parametrize("metric", METRICS[:4])
def test_p_is_uniform_between_equals_of_users(metric: str) -> None:
    assert uniform(trials(NULL_USERS, True, metric)) > 0.02


def test_rows_that_are_taken_as_independent_and_are_not_find_too_much() -> None:
    """What the clustered form is for: the same equals, users ignored."""
    pairs = trials(NULL_USERS, False, "auc")
    assert uniform(pairs) < 1e-6
    assert sum(one.gap.p < 0.05 for one in pairs) > 0.08 * TRIALS


def truth(world: World, shift: float) -> float:
    """AUC of normal scores: a click's and a non-click's differ by the shift, with the noise of both."""
    return float(stats.norm.cdf(shift / np.sqrt(2 * (1 + world.noise**2 + world.taste**2))))


@pytest.mark.parametrize("world", [World(gain=0.3), World(users=150, taste=0.5, gain=0.3)])
def test_intervals_cover_the_truth(world: World) -> None:
    expected = truth(world, world.shift + world.gain) - truth(world, world.shift)
    pairs = trials(world, world.taste > 0, "auc")
    covered = sum(one.gap.low <= expected <= one.gap.high for one in pairs) / len(pairs)
    assert abs(covered - 0.95) <= 0.015, covered


@pytest.mark.parametrize("metric", ["logloss", "gauc", "ne"])
def test_intervals_of_the_other_metrics_cover_what_a_large_sample_says(metric: str) -> None:
    world = World(taste=0.5, gain=0.3)
    rows, scores = drawn(world._replace(users=200_000), np.random.default_rng(3))
    expected = pair(metric, rows, scores).gap.difference
    pairs = trials(world, True, metric)
    covered = sum(one.gap.low <= expected <= one.gap.high for one in pairs) / len(pairs)
    assert abs(covered - 0.95) <= 0.02, covered


def test_ece_is_never_too_sure() -> None:
    """Its error holds the sign of each bin's gap: too wide where bins are calibrated, never too narrow."""
    pairs = trials(NULL_USERS, True, "ece")
    found = sum(one.gap.p < 0.05 for one in pairs) / len(pairs)
    assert found <= 0.06, found


def test_a_planted_difference_is_found_as_often_as_predicted() -> None:
    """+0.005 AUC between two nearly equal scores, 2,400 rows of 600 users."""
    world = World(users=600, rows=6, noise=0.12, taste=0.05, gain=0.023)
    planted = truth(world, world.shift + world.gain) - truth(world, world.shift)
    assert planted == pytest.approx(0.005, abs=2e-4)
    pairs = trials(world, True, "auc", 400)
    error = float(np.mean([one.error_rows for one in pairs]))
    power = float(stats.norm.cdf(planted / error - 1.96))
    assert 0.3 < power < 0.98
    found = sum(one.gap.p < 0.05 and one.gap.difference > 0 for one in pairs) / len(pairs)
    assert abs(found - power) < 0.06, (found, power)
    assert detectable(Error(error, 500), level=0.95) == pytest.approx(error * (1.96 + 0.842), rel=0.01)


def test_intervals_for_another_seed_and_another_sample_are_not_narrow() -> None:
    """Three seeds whose shift varies: neither rows alone nor seeds alone cover as they say; both together do."""
    rng, spread, count = np.random.default_rng(5), 0.25, 600
    rows_only = both = 0
    for _ in range(count):
        clicked = rng.random(300) < 0.4
        base = rng.normal(size=300)
        arms = {
            name: {
                seed: (base + (1 + spread * rng.normal()) * clicked + 0.6 * rng.normal(size=300)).astype(np.float32)
                for seed in (1, 2, 3)
            }
            for name in "ab"
        }
        loads = {name: {seed: lambda own=own: own for seed, own in seeds.items()} for name, seeds in arms.items()}
        found = measured("auc", Rows(clicked, np.ones(300)), loads).pair("b", "a", level=0.95)
        both += found.gap.low <= 0 <= found.gap.high
        rows_only += abs(found.gap.difference) <= 1.96 * found.error_rows
    assert rows_only / count < 0.9
    assert 0.935 <= both / count <= 0.985, both / count
