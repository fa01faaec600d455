"""Errors of rows that come in clusters, against loops, jackknives and other people's code."""

import numpy as np
import pytest

from fieldctr.analysis.comparison.clusters import clusters_of, error_of, sampling
from fieldctr.analysis.comparison.effects import METRICS, Rows
from fieldctr.analysis.comparison.pairs import Measured, measured
from fieldctr.errors import UserError
from fieldctr.training.metrics import metrics as recorded


def drawn(seed: int, users: int = 25, *, ties: bool = False, weighted: bool = False) -> tuple[Rows, np.ndarray]:
    """Rows of users with tastes of their own, some rows without a user, and three correlated score arrays."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(users), rng.integers(1, 6, users)).astype(np.int32)  # user 0 is nobody
    taste = rng.normal(size=users)[group]
    clicked = rng.random(len(group)) < 1 / (1 + np.exp(0.5 - taste))
    clicked[:2] = (False, True)
    scores = 0.8 * clicked + taste * rng.random((3, 1)) + rng.normal(size=(3, len(group)))
    weight = rng.uniform(0.2, 3, len(group)) if weighted else np.ones(len(group))
    scores = np.round(scores) if ties else scores
    return Rows(clicked, weight, group, clusters_of(group)), scores.astype(np.float32)


def found(metric: str, rows: Rows, scores: np.ndarray) -> Measured:
    return measured(metric, rows, {f"arm {i}": {1: lambda own=own: own} for i, own in enumerate(scores)})


def kernel(rows: Rows, score: np.ndarray) -> np.ndarray:
    """(clicks, non-clicks) 1 where the click is above, half for a tie."""
    positive, negative = score[rows.clicked], score[~rows.clicked]
    return (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)


def area(psi: np.ndarray, w: np.ndarray, v: np.ndarray) -> float:
    return float(w @ psi @ v / (w.sum() * v.sum()))


CASES = [(seed, ties, weighted) for seed in range(3) for ties in (False, True) for weighted in (False, True)]
each_case = pytest.mark.parametrize(("seed", "ties", "weighted"), CASES)


@each_case
def test_clustered_delong_is_obuchowskis_formula_by_loops(seed: int, ties: bool, weighted: bool) -> None:
    """S10, S01 and S11 as the paper writes them, over clusters, clicks of a cluster and its non-clicks."""
    rows, scores = drawn(seed, ties=ties, weighted=weighted)
    assert rows.cluster is not None
    w, v = rows.weight[rows.clicked], rows.weight[~rows.clicked]
    of_click, of_other = rows.cluster[rows.clicked], rows.cluster[~rows.clicked]
    clusters = np.unique(rows.cluster)
    with_clicks, with_others = len(np.unique(of_click)), len(np.unique(of_other))
    kernels = [kernel(rows, score) for score in scores]
    areas = [area(psi, w, v) for psi in kernels]
    expected = np.zeros((3, 3))
    for r in range(3):
        for s in range(3):
            s10 = s01 = s11 = 0.0
            for cluster in clusters:
                x, y = ([0.0, 0.0] for _ in range(2))
                for k, of in enumerate((r, s)):
                    for i in np.flatnonzero(of_click == cluster):
                        x[k] += w[i] * (float(kernels[of][i] @ v) / v.sum() - areas[of])
                    for j in np.flatnonzero(of_other == cluster):
                        y[k] += v[j] * (float(w @ kernels[of][:, j]) / w.sum() - areas[of])
                s10, s01, s11 = s10 + x[0] * x[1], s01 + y[0] * y[1], s11 + x[0] * y[1] + x[1] * y[0]
            expected[r, s] = (
                with_clicks / (with_clicks - 1) * s10 / w.sum() ** 2
                + with_others / (with_others - 1) * s01 / v.sum() ** 2
                + len(clusters) / (len(clusters) - 1) * s11 / (w.sum() * v.sum())
            )
    assert np.abs(found("auc", rows, scores).sampling.covariance - expected).max() < 1e-12


@each_case
def test_clustered_delong_is_a_jackknife_over_clusters(seed: int, ties: bool, weighted: bool) -> None:
    """Leave out the clicks of each cluster, then its non-clicks; what moves, by the share that is left, is its effect.

    That is Hinkley's weighted jackknife, which allows for clusters of unequal size.
    """
    rows, scores = drawn(seed + 10, ties=ties, weighted=weighted)
    assert rows.cluster is not None
    psi = kernel(rows, scores[1]), kernel(rows, scores[0])
    w, v = rows.weight[rows.clicked], rows.weight[~rows.clicked]
    of_click, of_other = rows.cluster[rows.clicked], rows.cluster[~rows.clicked]

    def gap(w: np.ndarray, v: np.ndarray) -> float:
        return area(psi[0], w, v) - area(psi[1], w, v)

    every = np.unique(rows.cluster)
    whole = gap(w, v)
    x = np.array([(1 - w[of_click == c].sum() / w.sum()) * (whole - gap(w * (of_click != c), v)) for c in every])
    y = np.array([(1 - v[of_other == c].sum() / v.sum()) * (whole - gap(w, v * (of_other != c))) for c in every])
    sizes = len(np.unique(of_click)), len(np.unique(of_other)), len(every)
    a, b, c = (size / (size - 1) for size in sizes)
    expected = a * (x**2).sum() + b * (y**2).sum() + 2 * c * (x * y).sum()
    one = found("auc", rows, scores)
    assert abs(error_of(one.sampling.covariance, [-1, 1, 0]) ** 2 - expected) < 1e-8
    assert abs(one.mean("arm 1") - one.mean("arm 0") - whole) < 1e-12


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_rows_alone_give_plain_delong(seed: int, ties: bool) -> None:
    """Singleton clusters, no clusters, and the jackknife of clicks and of non-clicks are one number."""
    rows, scores = drawn(seed, ties=ties)
    gap = kernel(rows, scores[1]) - kernel(rows, scores[0])
    clicks, others = gap.shape
    without_click = np.array([np.delete(gap, i, axis=0).mean() for i in range(clicks)])
    without_other = np.array([np.delete(gap, j, axis=1).mean() for j in range(others)])
    variance = sum(
        (n - 1) / n * ((left - left.mean()) ** 2).sum()
        for n, left in ((clicks, without_click), (others, without_other))
    )
    for cluster in (None, np.random.default_rng(seed).permutation(len(rows.clicked))):
        one = found("auc", rows._replace(cluster=cluster), scores).sampling
        assert abs(error_of(one.covariance, [-1, 1, 0]) ** 2 - variance) < 1e-12
        assert one.num_clusters == one.num_rows == len(rows.clicked)
        assert one.freedom == min(clicks, others) - 1


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("seed", range(2))
def test_the_effects_of_a_cluster_are_the_derivative_by_its_weight(metric: str, seed: int) -> None:
    rows, scores = drawn(seed, weighted=True)
    assert rows.cluster is not None
    compute, step = METRICS[metric].effects, 1e-5
    row = compute(rows, scores[0]).row
    for cluster in np.unique(rows.cluster)[:12]:
        own = rows.cluster == cluster
        up, down = (
            compute(rows._replace(weight=rows.weight * (1 + sign * step * own)), scores[0]).value for sign in (1, -1)
        )
        assert abs((up - down) / (2 * step) - row[own].sum()) < 1e-8


@pytest.mark.parametrize("metric", ["auc", "logloss", "gauc", "ne"])
def test_a_weight_is_so_many_copies_in_one_cluster(metric: str) -> None:
    rows, scores = drawn(4)
    times = np.random.default_rng(4).integers(1, 4, len(rows.clicked))
    weighted = found(metric, rows._replace(weight=times.astype(float)), scores)
    again = np.repeat(np.arange(len(times)), times)
    copied = found(metric, rows.take(again), scores[:, again])
    assert weighted.values == {arm: {1: pytest.approx(own[1])} for arm, own in copied.values.items()}
    assert weighted.sampling.covariance == pytest.approx(copied.sampling.covariance)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ties", [False, True])
def test_values_are_those_that_a_run_records(ties: bool, weighted: bool) -> None:
    rows, scores = drawn(6, 200, ties=ties, weighted=weighted)
    weight = rows.weight if weighted else None
    known = recorded(rows.clicked.astype(np.float32), scores[0], rows.group, None, weight=weight)
    for name, metric in METRICS.items():
        assert metric.effects(rows, scores[0]).value == pytest.approx(known[name], abs=1e-12), name


def test_the_effects_of_gauc_are_the_ratio_estimator_over_users() -> None:
    """Users with both classes; their impressions times their AUC, over their impressions."""
    rows, scores = drawn(7, 40)
    assert rows.group is not None
    sums = []
    for user in range(1, 40):
        own = rows.take(rows.group == user)
        if own.clicked.any() and not own.clicked.all():
            psi = kernel(own, scores[0][rows.group == user])
            sums.append((psi.mean() * len(own.clicked), len(own.clicked)))
    wins, sizes = np.array(sums).T
    ratio = wins.sum() / sizes.sum()
    variance = len(sums) / (len(sums) - 1) * ((wins - ratio * sizes) ** 2).sum() / sizes.sum() ** 2
    one = found("gauc", rows, scores)
    assert one.mean("arm 0") == pytest.approx(ratio)
    assert one.sampling.covariance[0, 0] == pytest.approx(variance)
    assert (one.sampling.num_clusters, one.sampling.num_rows) == (len(sums), sizes.sum())


@pytest.mark.parametrize("metric", ["auc", "logloss", "gauc", "ne"])
def test_leaving_out_whole_users_says_nearly_the_same(metric: str) -> None:
    """The plain jackknife: each user left out, the metric computed again."""
    rows, scores = drawn(8, 300)
    assert rows.cluster is not None
    compute = METRICS[metric].effects
    kept = [rows.cluster != user for user in np.unique(rows.cluster)]
    left = [
        compute(rows.take(keep), scores[1][keep]).value - compute(rows.take(keep), scores[0][keep]).value
        for keep in kept
    ]
    jackknife = np.sqrt((len(left) - 1) / len(left) * ((left - np.mean(left)) ** 2).sum())
    assert error_of(found(metric, rows, scores).sampling.covariance, [-1, 1, 0]) == pytest.approx(jackknife, rel=0.03)


def test_plain_delong_is_that_of_other_packages() -> None:
    mlstatkit = pytest.importorskip("MLstatkit", reason="MLstatkit, an oracle of the dev extra, is not installed")
    pauc = pytest.importorskip("pauc", reason="pauc, an oracle of the dev extra, is not installed")
    rows, scores = drawn(9, 80)
    one = found("auc", rows._replace(cluster=None), scores)
    error = error_of(one.sampling.covariance, [-1, 1, 0])
    z = (one.mean("arm 1") - one.mean("arm 0")) / error
    probability = 1 / (1 + np.exp(-scores.astype(np.float64)))
    answer = mlstatkit.Delong_test(rows.clicked.astype(int), probability[0], probability[1], return_ci=False)
    assert abs(answer[0]) == pytest.approx(abs(z), rel=1e-6)
    for i in range(3):
        own = pauc.ROC(rows.clicked.astype(int), scores[i].astype(np.float64))
        assert pauc.var(own) == pytest.approx(one.sampling.covariance[i, i], rel=1e-6)


@pytest.mark.parametrize("clustered", [True, False])
def test_the_error_of_a_mean_loss_is_that_of_statsmodels(clustered: bool) -> None:
    api = pytest.importorskip("statsmodels.api", reason="statsmodels, an oracle of the dev extra, is not installed")
    rows, scores = drawn(11)
    rows = rows if clustered else rows._replace(cluster=np.arange(len(rows.clicked)))
    losses = np.logaddexp(0, scores.astype(np.float64)) - rows.clicked * scores
    fit = api.OLS(losses[1] - losses[0], np.ones(len(rows.clicked))).fit()
    robust = fit.get_robustcov_results("cluster", groups=rows.cluster)
    one = found("logloss", rows, scores)
    assert one.mean("arm 1") - one.mean("arm 0") == pytest.approx(robust.params[0])
    assert error_of(one.sampling.covariance, [-1, 1, 0]) == pytest.approx(robust.bse[0])
    assert error_of(found("logloss", rows._replace(cluster=None), scores).sampling.covariance, [-1, 1, 0]) == (
        pytest.approx(fit.bse[0])
    )


def test_errors_are_blind_to_the_order_of_rows_and_to_increasing_functions() -> None:
    rows, scores = drawn(12, ties=True)
    once = found("auc", rows, scores).sampling.covariance
    order = np.random.default_rng(0).permutation(len(rows.clicked))
    assert found("auc", rows.take(order), scores[:, order]).sampling.covariance == pytest.approx(once)
    assert found("auc", rows, 3 * np.exp(scores) - 7).sampling.covariance == pytest.approx(once)


def test_what_has_no_error_is_refused() -> None:
    rows, scores = drawn(13)
    with pytest.raises(UserError, match=r"needs clicks and non-clicks, got 0 of"):
        found("logloss", rows._replace(clicked=np.zeros(len(rows.clicked), bool)), scores)
    single = rows._replace(cluster=np.ones(len(rows.clicked), np.int64))
    with pytest.raises(UserError, match="AUC has no error: its clicks or its non-clicks are of 1 user"):
        found("auc", single, scores)
    with pytest.raises(UserError, match="gAUC needs a user with clicks and non-clicks"):
        found("gauc", rows._replace(group=np.zeros(len(rows.clicked), np.int32)), scores)


def test_half_a_million_rows_are_exact() -> None:
    """A planted order, at a size where counts in float32 would round."""
    n = 500_000
    clicked = np.arange(n) % 2 == 1
    group = (np.arange(n) // 4 + 1).astype(np.int32)
    rows = Rows(clicked, np.ones(n), group, clusters_of(group))
    logit = (np.arange(n) // 2 % 2 + clicked * np.float32(0.25)).astype(np.float32)  # in each user 0, .25, 1, 1.25
    one = found("gauc", rows, np.stack([logit, -logit]))
    assert one.values == {"arm 0": {1: 0.75}, "arm 1": {1: 0.25}}
    assert error_of(one.sampling.covariance, [1, -1]) < 1e-12  # all users are alike
    assert sampling("auc", rows, np.zeros((1, n))).num_clusters == n // 4
    assert found("auc", rows, np.stack([logit])).mean("arm 0") == 0.75
