"""Target means, oracles and trees against naive twins, and what must not be gained from labels."""

import json
from pathlib import Path

import numpy as np
import pytest

from fieldctr.analysis.baselines.baselines import (
    MEMORY,
    Chosen,
    Row,
    ceilings,
    choose,
    floor_and_ceiling,
    share_closed,
    tree_features,
)
from fieldctr.analysis.baselines.boosting import BoostingConfig, fit_trees
from fieldctr.analysis.baselines.oracle import by_chance, oracle
from fieldctr.analysis.baselines.target_means import FOLDS, Discretized, added, cells, discretize, mean_of, statistic
from fieldctr.data.dataset import Dataset, Split
from fieldctr.ranking import auc, counted_auc
from fieldctr.schema import Field, Schema

ROWS = {"train": 3000, "valid": 1000, "test": 1000}
SIZES = (400, 9, 6, 5)  # random ids, two fields whose pair decides, noise


@pytest.fixture(scope="module")
def table() -> Discretized:
    """Clicks that depend on fields 1 and 2 together, and a little on field 1."""
    rng = np.random.default_rng(0)
    effect = np.array([-1.0, 1.0])[np.add.outer(np.arange(9), np.arange(6)) % 2] * 1.2 + np.linspace(-1, 1, 9)[:, None]
    categories = {name: np.stack([rng.integers(1, size, n) for size in SIZES]) for name, n in ROWS.items()}
    label = {name: _draw(rng, effect[own[1], own[2]]) for name, own in categories.items()}
    return Discretized(categories, label, SIZES)


def _draw(rng: np.random.Generator, logit: np.ndarray) -> np.ndarray:
    return (rng.random(len(logit)) < 1 / (1 + np.exp(-logit))).astype(np.float32)


@pytest.mark.parametrize("fields", [(0,), (1, 2), (0, 3)], ids=str)
def test_a_statistic_is_its_definition(table: Discretized, fields: tuple[int, ...]) -> None:
    prior = {name: np.linspace(0.1, 0.6, n) for name, n in ROWS.items()}
    found = statistic(table, cells(table, fields), prior, smoothing=7, seed=3)
    fold = np.random.default_rng(3).permutation(ROWS["train"]) % FOLDS
    values = {name: list(map(tuple, table.categories[name][list(fields)].T)) for name in ROWS}
    for name, rows in ROWS.items():
        for row in range(0, rows, 97):
            same = [
                i
                for i, value in enumerate(values["train"])
                if value == values[name][row] and (name != "train" or fold[i] != fold[row])
            ]
            clicks = float(table.label["train"][same].sum())
            assert found.count[name][row] == len(same)
            assert found.mean[name][row] == pytest.approx((clicks + 7 * prior[name][row]) / (len(same) + 7))


def test_random_ids_gain_nothing_out_of_fold_and_would_in_fold(table: Discretized) -> None:
    cell, label = cells(table, (0,)), table.label["train"]
    out = statistic(table, cell, table.rate, smoothing=5, seed=1).mean["train"]
    assert abs(auc(label, out) - 0.5) < 0.03
    clicks, rows = np.bincount(cell.index["train"], label), np.bincount(cell.index["train"])
    assert auc(label, (clicks / np.maximum(rows, 1))[cell.index["train"]]) > 0.6


def test_what_train_lacks_gets_the_overall_rate(table: Discretized) -> None:
    lacking = {name: np.where(own == 3, 2, own) if name == "train" else own for name, own in table.categories.items()}
    other = table._replace(categories=lacking)
    for fields in ((1,), (1, 2)):
        mean = mean_of(other, cells(other, fields), "test", smoothing=5)
        new = other.categories["test"][1] == 3
        assert new.any()
        np.testing.assert_allclose(mean[new], other.rate)


def test_effects_that_just_add_are_the_prior_of_a_pair(table: Discretized) -> None:
    one, two = (statistic(table, cells(table, (i,)), table.rate, smoothing=5, seed=1) for i in (1, 2))
    p, q, r = one.mean["test"][0], two.mean["test"][0], table.rate
    odds = p / (1 - p) * q / (1 - q) / (r / (1 - r))
    assert added(one, two, table.rate)["test"][0] == pytest.approx(odds / (1 + odds))


def test_the_pair_that_decides_is_chosen(table: Discretized) -> None:
    chosen = choose(table, num_fields=2, num_pairs=3, smoothing=5)
    assert chosen.fields[0] == (1,)
    assert chosen.pairs[0] == (1, 2)
    assert len(chosen.fields) == 2


def test_the_choice_never_reads_test(table: Discretized) -> None:
    shuffled = table._replace(label=table.label | {"test": table.label["test"][::-1]})
    settings = {"num_fields": 3, "num_pairs": 3, "smoothing": 5.0}
    assert choose(shuffled, **settings) == choose(table, **settings)


def test_thinning_keeps_rows_and_labels_together(table: Discretized) -> None:
    thin = table.thinned(500)
    assert {name: len(label) for name, label in thin.label.items()} == {"train": 500, "valid": 500, "test": 500}
    np.testing.assert_array_equal(thin.categories["train"], table.categories["train"][:, ::6])
    np.testing.assert_array_equal(thin.label["train"], table.label["train"][::6])


def test_an_oracle_is_its_own_means_and_no_function_of_the_cells_is_better() -> None:
    rng = np.random.default_rng(1)
    cell, label = rng.integers(0, 30, 400) * 7, (rng.random(400) < 0.3).astype(np.float32)
    means = np.array([label[cell == value].mean() for value in cell], np.float64)
    best = oracle(cell, label)
    assert best["auc"] == pytest.approx(auc(label, means))
    inner = np.clip(means, 1e-12, 1 - 1e-12)
    assert best["logloss"] == pytest.approx(-(label * np.log(inner) + (1 - label) * np.log(1 - inner)).mean(), abs=1e-9)
    for _ in range(50):
        assert auc(label, rng.normal(size=30)[cell // 7] * 0.2 + means) <= best["auc"]
    assert oracle(np.arange(400), label) == {"auc": 1.0, "logloss": 0.0}
    assert oracle(np.zeros(400), label)["auc"] == 0.5


def test_auc_by_counts_is_auc_by_rows() -> None:
    rng = np.random.default_rng(2)
    score = rng.integers(0, 5, 40) / 4
    clicks, others = rng.integers(0, 9, 40), rng.integers(0, 9, 40)
    rows = np.repeat(score, clicks), np.repeat(score, others)
    label = np.repeat([1.0, 0.0], [len(rows[0]), len(rows[1])])
    assert counted_auc(score, clicks, others) == pytest.approx(auc(label, np.concatenate(rows)))


def test_a_share_is_part_of_the_way() -> None:
    assert share_closed(0.75, 0.7, 0.8) == pytest.approx(0.5)
    assert share_closed(0.69, 0.7, 0.8) == pytest.approx(-0.1)


def test_features_of_trees_are_means_and_counts(table: Discretized) -> None:
    features = tree_features(table, [(1, 2)], smoothing=5, seed=1)
    assert {name: own.shape for name, own in features.items()} == {name: (n, 6) for name, n in ROWS.items()}
    pair = statistic(table, cells(table, (1, 2)), table.rate, smoothing=5, seed=1)
    np.testing.assert_allclose(features["test"][:, 5], np.log1p(pair.count["test"]), rtol=1e-6)


def test_trees_find_the_pair(table: Discretized) -> None:
    pytest.importorskip("lightgbm", reason="lightgbm is an extra")
    config = BoostingConfig(
        learning_rate=0.1, num_leaves=7, min_data_in_leaf=20, feature_fraction=1.0, bagging_fraction=1.0,
        lambda_l2=1.0, max_rounds=100, patience=10,
    )  # fmt: skip
    scores = {}
    for pairs in ([], [(1, 2)]):
        features = tree_features(table, pairs, smoothing=5, seed=1)
        logit = fit_trees(features, table.label, config, threads=1, seed=1)
        scores[len(pairs)] = auc(table.label["test"], logit["test"])
    assert scores[1] > 0.75
    assert scores[1] > scores[0] - 0.01


@pytest.mark.parametrize("seed", range(5))
def test_weights_are_repeated_rows(table: Discretized, seed: int) -> None:
    """Naive twin of each statistic that knows weights: the row written so many times."""
    rng = np.random.default_rng(seed)
    times = {name: rng.integers(0, 4, n) for name, n in ROWS.items()}
    weighted = table._replace(weight={name: own.astype(float) for name, own in times.items()})
    categories = {name: np.repeat(own, times[name], axis=1) for name, own in table.categories.items()}
    repeated = Discretized(
        categories, {name: np.repeat(own, times[name]) for name, own in table.label.items()}, table.sizes
    )
    assert weighted.rate == pytest.approx(repeated.rate)
    for fields in ((0,), (1, 2)):
        one, two = (mean_of(own, cells(own, fields), "test", smoothing=5) for own in (weighted, repeated))
        np.testing.assert_allclose(np.repeat(one, times["test"]), two)
        assert auc(table.label["test"], one, weighted.weight_of("test")) == pytest.approx(
            auc(repeated.label["test"], two)
        )
    cell = table.categories["test"][1]
    one = oracle(cell, table.label["test"], weighted.weight_of("test"))
    assert one == pytest.approx(oracle(np.repeat(cell, times["test"]), repeated.label["test"]))
    settings = {"num_fields": 4, "num_pairs": 3, "smoothing": 5.0}
    assert choose(weighted, **settings) == choose(repeated, **settings)


def test_weights_of_one_change_nothing(table: Discretized) -> None:
    same = table._replace(weight={name: np.ones(n) for name, n in ROWS.items()})
    one, two = (tree_features(own, [(1, 2)], smoothing=5, seed=1) for own in (same, table))
    for name in ROWS:
        np.testing.assert_array_equal(one[name], two[name])


def test_a_statistic_sums_the_weights_of_the_other_folds(table: Discretized) -> None:
    weight = {name: np.random.default_rng(1).random(n) for name, n in ROWS.items()}
    weighted = table._replace(weight=weight)
    found = statistic(weighted, cells(weighted, (1,)), 0.3, smoothing=7, seed=3)
    fold = np.random.default_rng(3).permutation(ROWS["train"]) % FOLDS
    same = (table.categories["train"][1] == table.categories["train"][1][5]) & (fold != fold[5])
    rows, clicks = weight["train"][same].sum(), (weight["train"] * table.label["train"])[same].sum()
    assert found.count["train"][5] == pytest.approx(rows)
    assert found.mean["train"][5] == pytest.approx((clicks + 7 * 0.3) / (rows + 7))


def dataset(rng: np.random.Generator, folder: Path, *, rows: int, values: int, weighted: bool = False) -> Dataset:
    """Two fields of so many values each."""
    (folder / "facts.json").write_text(json.dumps({}), encoding="utf-8")
    splits = []
    for _ in range(3):
        ids = rng.integers(1, values, (rows, 2)).astype(np.int32)
        label = _draw(rng, (ids[:, 0] % 2) - 0.5)
        splits.append(Split(ids, label, weight=rng.random(rows).astype(np.float32) * 9 if weighted else None))
    return Dataset(Schema((Field("a", values), Field("b", values))), *splits, folder)


def test_weights_are_one_in_the_mean_over_train(tmp_path: Path) -> None:
    data = dataset(np.random.default_rng(1), tmp_path, rows=500, values=5, weighted=True)
    table = discretize(data, train_rows=10**6)
    assert table.weight is not None
    assert data.test.weight is not None
    assert data.train.weight is not None
    assert table.weight["train"].mean() == pytest.approx(1)
    np.testing.assert_allclose(table.weight["test"], data.test.weight / data.train.weight.mean(), rtol=1e-5)
    thin = table.thinned(100)
    assert thin.weight is not None
    np.testing.assert_array_equal(thin.weight["train"], table.weight["train"][::5])


@pytest.mark.parametrize("seed", range(3))
def test_an_oracle_that_shuffled_labels_bring_as_far_is_left_out(seed: int, tmp_path: Path) -> None:
    """All fields together stand for rows where these are nearly unique, and for kinds of rows where they are few."""
    kept = {}
    for values in (6, 300):
        data = dataset(np.random.default_rng(seed), tmp_path, rows=2000, values=values)
        rows, left_out = ceilings(data, discretize(data, train_rows=10**6), Chosen([(0,)], []), ["a", "b"])
        kept[values] = {row.name for row in rows}
        assert set(left_out) | kept[values] == {"a", "all fields"}
        assert all(chance >= MEMORY for chance in left_out.values())
    assert kept == {6: {"a", "all fields"}, 300: {"a"}}


def test_chance_is_the_mean_over_shuffles() -> None:
    rng = np.random.default_rng(3)
    cell, label = rng.integers(0, 400, 2000), (rng.random(2000) < 0.3).astype(np.float32)
    shuffled = [oracle(cell, rng.permutation(label))["auc"] for _ in range(20)]
    assert by_chance(cell, label) == pytest.approx(np.mean(shuffled), abs=6 * float(np.std(shuffled)))


def _row(name: str, kind: str, valid_auc: float) -> Row:
    return Row(name, kind, {"valid": {"auc": valid_auc}, "test": {"auc": 1 - valid_auc}})


def test_floor_and_ceiling_are_chosen_on_valid() -> None:
    rows = [_row("a", "field", 0.6), _row("lr", "lr", 0.7), _row("trees", "trees", 0.75)]
    oracles, truth = (
        [_row("a", "oracle", 0.8), _row("b", "oracle", 0.9), _row("c", "oracle", 0.65)],
        _row("", "truth", 0.8),
    )
    names = [row and (row.name, row.kind) for row in floor_and_ceiling(rows + oracles)]
    assert names == [("lr", "lr"), ("b", "oracle"), ("trees", "trees")]
    assert floor_and_ceiling([*rows, *oracles, truth])[1] == truth
    assert floor_and_ceiling([*rows, oracles[2]])[1] is None
    assert floor_and_ceiling([rows[0], rows[2]])[0] == rows[2]
