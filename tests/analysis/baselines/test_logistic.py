"""The design matrix against a row-by-row twin, and the fit against its own optimality conditions, written naively."""

import importlib.util
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from fieldctr.analysis.baselines.design import logits, scales
from fieldctr.analysis.baselines.logistic import Fit, LogisticConfig, Samples, Solver, logistic, note, path
from fieldctr.analysis.parity.reference_models import embed
from fieldctr.data.dataset import Dataset, Split
from fieldctr.errors import UserError
from fieldctr.ranking import auc
from fieldctr.schema import Field, Schema

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("sklearn"), reason="scikit-learn is an extra")

SCHEMA = Schema(
    (
        Field("user", 30), Field("price", 2, numeric=True), Field("tags", 6, width=3),
        Field("seen", 30, 2, shares="user"), Field("age", 2, numeric=True),
    )
)  # fmt: skip
CONFIG = LogisticConfig(C=[0.01, 0.1, 1, 10], patience=2, tolerance=1e-9)


def drawn(rng: np.random.Generator, rows: int, *, weighted: bool = False) -> Split:
    """Random ids, lists padded on the right, numbers of which some are missing, and clicks that depend on them."""
    lists = [rng.integers(1, size, (rows, width)) for size, width in ((6, 3), (30, 2))]
    for own in lists:
        own[np.arange(own.shape[1]) >= rng.integers(0, own.shape[1] + 1, (rows, 1))] = 0
    present = rng.integers(0, 2, (rows, 2))
    ids = np.column_stack([rng.integers(0, 30, rows), present[:, 0], *lists, present[:, 1]]).astype(np.int32)
    values = (present * rng.normal(3, 50, (rows, 2))).astype(np.float32)
    effect = 0.2 * (ids[:, 0] % 5) - 1 + 0.02 * values[:, 0] + 0.3 * (ids[:, 2] == 2)
    label = (rng.random(rows) < 1 / (1 + np.exp(-effect))).astype(np.float32)
    weight = rng.integers(0, 4, rows).astype(np.float32) if weighted else None
    return Split(ids, label, values, weight=weight)


def dataset(rng: np.random.Generator, *, weighted: bool = False) -> Dataset:
    return Dataset(SCHEMA, *(drawn(rng, rows, weighted=weighted) for rows in (600, 300, 300)), Path())


@pytest.mark.parametrize("seed", range(5))
def test_the_matrix_is_the_models_first_order_table(seed: int) -> None:
    """Its product with a table's only column is the sum of the fields' embeddings, once numbers are scaled."""
    rng = np.random.default_rng(seed)
    split = drawn(rng, 50)
    scale, weights = scales(SCHEMA, split), rng.normal(size=(SCHEMA.unshared().vocab_size, 1))
    assert split.values is not None
    expected = embed(weights, SCHEMA.unshared(), split.ids, split.values / scale).sum((1, 2))
    np.testing.assert_allclose(logits(SCHEMA, split, scale, weights[:, 0], 0.5), expected + 0.5, atol=1e-9)
    for i, column in enumerate((1, 7)):
        known = split.values[split.ids[:, column] > 0, i].astype(np.float64)
        assert scale[i] == pytest.approx((known**2).mean() ** 0.5)


def slopes(x: np.ndarray, split: Split, fit: Fit) -> np.ndarray:
    """Derivatives of C sum s log(1 + exp(-y z)) + |w|^2 / 2, a row at a time."""
    weight = np.ones(len(split)) if split.weight is None else split.weight / split.weight.mean()
    total = np.zeros(x.shape[1] + 1)
    for row, label, own in zip(x, split.label, weight, strict=True):
        sign = 2 * label - 1
        pull = -sign / (1 + np.exp(sign * (row @ fit.weights + fit.bias)))
        total += fit.C * own * pull * np.append(row, 1)
    return total + np.append(fit.weights, 0)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("strength", [0.01, 1, 100])
def test_a_fit_is_at_its_optimum(strength: float, weighted: bool) -> None:
    split = drawn(np.random.default_rng(1), 400, weighted=weighted)
    samples = Samples.of(SCHEMA, split, scales(SCHEMA, split))
    fit = Solver(1e-10).fit(strength, samples)
    own = slopes(samples.x.toarray(), split, fit)
    assert np.abs(own).max() < 1e-6 * strength * len(split)
    moved = fit._replace(weights=fit.weights + 0.1)
    expected = np.abs(slopes(samples.x.toarray(), split, moved)).max() / strength / len(split)
    assert samples.gradient(moved.weights, moved.bias, strength) == pytest.approx(expected)


def test_weights_are_repeated_rows() -> None:
    split = drawn(np.random.default_rng(2), 400, weighted=True)
    assert split.weight is not None
    repeated = split.take(np.repeat(np.arange(400), split.weight.astype(int)))
    scale, rows = scales(SCHEMA, split), len(repeated)
    one = Solver(1e-10).fit(rows / 400, Samples.of(SCHEMA, split, scale))
    other = Solver(1e-10).fit(1.0, Samples.of(SCHEMA, replace(repeated, weight=None), scale))
    np.testing.assert_allclose(one.weights, other.weights, atol=1e-5)


def test_a_start_changes_nothing_but_the_time() -> None:
    split = drawn(np.random.default_rng(3), 400)
    samples, solver = Samples.of(SCHEMA, split, scales(SCHEMA, split)), Solver(1e-10)
    cold = solver.fit(1, samples)
    warm = Solver(1e-10).fit(1, samples, start=solver.fit(0.1, samples))
    np.testing.assert_allclose(warm.weights, cold.weights, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_the_path_takes_the_best_on_valid_and_stops_behind_it(seed: int) -> None:
    data = dataset(np.random.default_rng(seed))
    scale = scales(SCHEMA, data.train)
    train, valid = (Samples.of(SCHEMA, split, scale) for split in (data.train, data.valid))
    fits, best = path(Solver(1e-9), train, valid, replace(CONFIG, C=[10, 0.1, 0.01, 1], patience=4))
    assert [fit.C for fit in fits] == [0.01, 0.1, 1, 10]
    aucs = [auc(data.valid.label, logits(SCHEMA, data.valid, scale, fit.weights, fit.bias)) for fit in fits]
    assert best.C == fits[int(np.argmax(aucs))].C
    short, _ = path(Solver(1e-9), train, valid, replace(CONFIG, C=[0.01, 0.1, 1, 10], patience=1))
    falls = [i for i, (one, two) in enumerate(pairwise(aucs)) if two <= one]
    assert len(short) == (falls[0] + 2 if falls else 4)


def test_the_choice_never_reads_test() -> None:
    data = dataset(np.random.default_rng(4))
    other = replace(data, test=replace(data.test, label=1 - data.test.label))
    one, two = (logistic(own, CONFIG, train_rows=10**6, screen_rows=10**6) for own in (data, other))
    np.testing.assert_array_equal(one.logits["test"], two.logits["test"])
    assert one.fit.C == two.fit.C


def test_a_part_chooses_and_the_whole_is_fitted() -> None:
    data = dataset(np.random.default_rng(5))
    found = logistic(data, CONFIG, train_rows=10**6, screen_rows=200)
    assert "on 600 train rows" in found.note
    assert "(on 200 of them)" in found.note
    scale = scales(SCHEMA, data.train)
    whole = Solver(1e-9).fit(found.fit.C, Samples.of(SCHEMA, data.train, scale))
    np.testing.assert_allclose(found.fit.weights, whole.weights, atol=1e-5)
    fewer = logistic(data, CONFIG, train_rows=100, screen_rows=200)
    assert "on 100 train rows" in fewer.note


def test_edges_and_fits_that_have_not_arrived_are_said() -> None:
    middle, low, high = (note(_fit(c, 1e-10), [c], CONFIG, rows=(9, 9)) for c in (0.1, 0.01, 10))
    assert "edge" not in middle
    assert "try lower ones" in low
    assert "try higher ones" in high
    assert "not at its optimum" in note(_fit(0.1, 1e-3), [0.1], CONFIG, rows=(9, 9))
    with pytest.raises(UserError, match="expected numbers above 0"):
        replace(CONFIG, C=[0, 1])


def _fit(strength: float, gradient: float) -> Fit:
    return Fit(strength, np.zeros(1), 0.0, gradient)
