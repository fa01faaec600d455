"""Laws: planted exponents come back, intervals keep their word, and noise is called noise."""

import numpy as np
import pytest

from fieldctr.analysis.scaling.bound import capacity
from fieldctr.analysis.scaling.laws import (
    CONSTANT,
    GAIN,
    Cells,
    Form,
    Study,
    fit,
    grouped,
    log_linear,
    loss_law,
    resampled,
    study,
    varied,
)
from fieldctr.errors import UserError

N = np.geomspace(5e4, 5e6, 8)
EXPONENT = 0.433  # the paper's
NOISE = 0.02  # of one run, in points


def gains(seed: int, *, seeds: int = 3, exponent: float = EXPONENT) -> Cells:
    """Eight sizes whose gains over a baseline, itself the mean of noisy seeds, follow 0.03 (N / 50,000)^b."""
    rng = np.random.default_rng(seed)
    truth = 0.03 * (N / N[0]) ** exponent
    values = truth[:, None] + NOISE * rng.standard_normal((len(N), seeds))
    values -= NOISE * rng.standard_normal(seeds).mean()
    sizes = np.stack([np.repeat(N, seeds), np.full(values.size, 1e5)], axis=1)
    return grouped(sizes, values.ravel(), np.repeat(np.arange(len(N)), seeds), shift=NOISE / seeds**0.5)


def losses(seed: int, noise: float = 5e-4) -> Cells:
    """Five sizes by four numbers of train rows, three seeds each."""
    rng = np.random.default_rng(seed)
    grid = np.array([(n, d) for n in N[::2] for d in (1e4, 3e4, 1e5, 3e5)]).repeat(3, axis=0)
    truth = 0.5 + 0.05 * (grid[:, 0] / N[0]) ** -0.35 + 0.04 * (grid[:, 1] / 1e4) ** -0.5
    return grouped(grid, truth + noise * rng.standard_normal(len(grid)), np.arange(len(grid)) // 3)


def judged(cells: Cells, form: Form = GAIN, *, seed: int = 0, hold_out: int = 1) -> Study:
    better = "higher" if form is GAIN else "lower"
    return study(form, cells, better=better, unit="points", hold_out=hold_out, resamples=200, seed=seed)


def test_without_noise_every_law_comes_back() -> None:
    cells = losses(1, noise=0.0)
    found = fit(loss_law((0, 1)), cells, cells.mean[None]).named()
    expected = {"E": 0.5, "A": 0.05 * N[0] ** 0.35, "alpha": 0.35, "B": 0.04 * 1e4**0.5, "beta": 0.5}
    assert {name: float(value[0]) for name, value in found.items()} == pytest.approx(expected, rel=1e-4)
    line = Cells(np.stack([N, N], axis=1), 5.81e-5 * N**EXPONENT, np.ones(len(N)))
    gain = fit(GAIN, line, line.mean[None]).named()
    assert (gain["a"][0], gain["b"][0]) == pytest.approx((5.81e-5, EXPONENT), rel=1e-6)


@pytest.mark.parametrize("form", [GAIN, loss_law((0,))], ids=lambda form: form.name)
def test_a_fit_is_the_best_of_all_exponents(form: Form) -> None:
    """The twin tries 10,000 exponents, and the coefficients of each by plain least squares over the single runs."""
    sign, noise = form.sign, np.random.default_rng(3).standard_normal(len(N)) * 0.003
    mean = 0.1 + 0.05 * (N / N[0]) ** (0.4 * sign) + noise
    cells = Cells(np.stack([N, N], axis=1), mean, np.array([1, 2, 3, 1, 4, 1, 2, 5.0]))
    runs = np.repeat(np.arange(len(N)), cells.seeds.astype(int))
    scaled, least, best = N[runs] / N.mean(), np.inf, 0.0
    for exponent in np.linspace(0.02, 1.9, 10_000):
        power = scaled ** (exponent * sign)
        columns = np.stack([np.ones_like(power), power] if form.intercept else [power], axis=1)
        left = np.linalg.lstsq(columns, mean[runs], rcond=None)[1][0]
        if left < least:
            least, best = left, exponent
    assert fit(form, cells, cells.mean[None]).exponents[0, 0] == pytest.approx(best, abs=3e-4)


def test_the_unit_of_size_changes_nothing_but_the_factor() -> None:
    cells = gains(4)
    million = cells._replace(sizes=cells.sizes / 1e6)
    ours, theirs = (fit(GAIN, one, one.mean[None]).named() for one in (cells, million))
    assert theirs["b"][0] == pytest.approx(ours["b"][0], abs=1e-6)
    assert theirs["a"][0] == pytest.approx(ours["a"][0] * 1e6 ** ours["b"][0], rel=1e-4)


@pytest.mark.slow
def test_the_interval_covers_a_planted_exponent_and_shuffled_sizes_support_no_law() -> None:
    covered, supported, shuffled = [], [], []
    for seed in range(50):
        cells = gains(seed)
        found = judged(cells, seed=seed)
        covered.append(found.parameters["b"].low <= EXPONENT <= found.parameters["b"].high)
        supported.append(found.supported)
        order = np.random.default_rng(1000 + seed).permutation(len(N))
        shuffled.append(judged(cells._replace(mean=cells.mean[order]), seed=seed).verdict)
    assert np.mean(covered) >= 0.9
    assert np.mean(supported) >= 0.9
    assert np.mean([verdict.startswith("no law supported") for verdict in shuffled]) >= 0.9


@pytest.mark.slow
def test_the_loss_law_covers_both_its_exponents() -> None:
    studies = [judged(losses(seed), loss_law((0, 1)), seed=seed) for seed in range(20)]
    for symbol, truth in (("alpha", 0.35), ("beta", 0.5)):
        found = [one.parameters[symbol] for one in studies]
        assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.9
        assert np.median([one.high - one.low for one in found]) < 0.5  # an interval of everything would cover too
    assert np.mean([one.supported for one in studies]) >= 0.9


def test_noise_alone_supports_no_law() -> None:
    flat = [judged(gains(seed, exponent=0.0), seed=seed).supported for seed in range(40)]
    assert np.mean(flat) <= 0.1


def test_growth_along_a_straight_line_is_no_power_law() -> None:
    line = Cells(np.stack([N, N], axis=1), 0.1 + 0.03 * np.log(N / N[0]), np.full(len(N), 3.0), noise=0.001)
    found = judged(line)
    assert found.verdict.startswith("no law supported")
    assert "line in log N predicts the held-out sizes as well" in found.verdict


def test_what_seeds_disagree_about_the_mean_cannot_know() -> None:
    """Means that happen to lie near a law are not known better than their seeds allow."""
    rng = np.random.default_rng(5)
    means = 0.03 * (N / N[0]) ** EXPONENT + 1e-4 * rng.standard_normal(len(N))
    widths = []
    for noise in (0.0, 0.02, 0.04):
        cells = Cells(np.stack([N, N], axis=1), means, np.full(len(N), 3.0), noise=noise)
        low, high = np.quantile(resampled(GAIN, cells, resamples=400, rng=rng).named()["b"][1:], [0.025, 0.975])
        widths.append(high - low)
    assert widths[0] < 0.02 < widths[1]
    assert widths[2] == pytest.approx(2 * widths[1], rel=0.4)


def test_the_largest_sizes_are_held_out_and_predicted() -> None:
    found = judged(losses(2), loss_law((0, 1)), hold_out=2)
    work = found.cells.sizes.prod(1)
    assert work[found.outer].min() > work[found.inner].max()
    law, constant, line = found.held_out
    assert (law.form, constant.form, line.form) == ("E + A / N^alpha + B / D^beta", CONSTANT.name, "line in log N, D")
    observed = found.cells.mean[found.outer]
    assert [one.value for one in law.predicted] == pytest.approx(observed + law.errors)
    assert constant.predicted[0].value == pytest.approx(found.cells.mean[found.inner].mean())


def test_too_few_sizes_support_no_law_and_say_what_is_needed() -> None:
    cells = gains(1).take(np.array([0, 3, 7]))
    assert judged(cells).verdict == "no law supported: 2 sizes to fit, and a N^b needs 3"
    with pytest.raises(UserError, match="hold_out=3: the runs have 3 sizes"):
        judged(cells, hold_out=3)
    two_widths = losses(1).take(np.flatnonzero(np.isin(losses(1).sizes[:, 0], N[:3:2])))
    assert (
        "2 values of N to fit, and an exponent beside an intercept needs 3"
        in judged(two_widths, loss_law((0, 1))).verdict
    )


def test_runs_of_one_cell_become_its_mean() -> None:
    cells = grouped(np.array([[9, 1], [5, 1], [9, 1]]), np.array([1.0, 7.0, 3.0]), np.array([4, 2, 4]))
    assert cells.sizes.tolist() == [[5, 1], [9, 1]]
    assert cells.mean.tolist() == [7, 2]
    assert cells.seeds.tolist() == [1, 2]
    assert cells.noise == pytest.approx(2**0.5)  # sd of 1 and 3
    assert varied(cells.sizes) == (0,)
    assert log_linear((0,)).num_free == 2


def test_the_capacity_term_knows_fields_width_and_rows() -> None:
    assert capacity(40, 16, 100) == pytest.approx((40 * 256 + 1600) ** 0.5 / 10)
    assert capacity(40, 16, 400) == pytest.approx(capacity(40, 16, 100) / 2)
    assert capacity(4, 2000, 100) / capacity(1, 1000, 100) == pytest.approx(4, rel=1e-3)  # sqrt(F) d where F << d^2
