"""Metrics against loops over pairs, and against scikit-learn and torchmetrics."""

import math

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from fieldctr.errors import UserError
from fieldctr.training import metrics as m


def sample(rows: int, seed: int, *, distinct: int = 7) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, logits with many ties, and groups, some of one class only."""
    generator = np.random.default_rng(seed)
    logit = (2 * generator.integers(-distinct, distinct, rows) / distinct).astype(np.float32)
    label = (generator.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    return label, logit, generator.integers(1, max(3, 1 + rows // 6), rows).astype(np.int32)


def pair_auc(label: np.ndarray, logit: np.ndarray) -> float:
    """Every (click, non-click) pair, one by one."""
    pairs = [(p, n) for p in logit[label == 1] for n in logit[label == 0]]
    return sum(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs) / len(pairs)


@pytest.mark.parametrize("seed", range(8))
def test_auc_is_the_share_of_ordered_pairs(seed: int) -> None:
    label, logit, _ = sample(60, seed)
    assert m.auc(label, logit) == pytest.approx(pair_auc(label, logit), abs=1e-14)
    assert m.auc(label, logit) == pytest.approx(roc_auc_score(label, logit), abs=1e-12)


def test_auc_with_more_clicks_than_non_clicks_searches_the_other_way() -> None:
    label, logit, _ = sample(200, 3)
    logit, flipped = logit + 2, 1 - label
    assert m.auc(flipped, logit) == pytest.approx(1 - m.auc(label, logit), abs=1e-14)
    rare = (np.arange(200) % 20 == 0).astype(np.float32)
    assert m.auc(rare, logit) == pytest.approx(roc_auc_score(rare, logit), abs=1e-12)
    assert m.auc(1 - rare, logit) == pytest.approx(roc_auc_score(1 - rare, logit), abs=1e-12)


def test_auc_sees_only_the_order() -> None:
    label, logit, _ = sample(500, 1)
    assert m.auc(label, np.exp(logit)) == m.auc(label, logit)
    assert m.auc(label, np.zeros_like(logit)) == 0.5
    assert m.auc(label, label) == 1.0


def test_auc_of_one_class_is_refused() -> None:
    with pytest.raises(UserError, match="got 3 and 0"):
        m.auc(np.ones(3, np.float32), np.zeros(3, np.float32))


def test_logloss_is_sklearns_and_never_clips() -> None:
    label, logit, _ = sample(300, 2)
    assert m.logloss(label, logit) == pytest.approx(log_loss(label, m.sigmoid(logit)), rel=1e-12)
    far = np.array([200.0, -300.0], np.float32)
    assert m.logloss(np.array([0.0, 1.0], np.float32), far) == pytest.approx(250.0)


def test_normalized_entropy_of_the_base_rate_is_one() -> None:
    label, _, _ = sample(4000, 4)
    rate = float(label.mean())
    constant = np.full_like(label, math.log(rate / (1 - rate)))
    assert m.metrics(label, constant, None, None)["ne"] == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("rows", [40, 1000])
def test_ece_is_its_loop(rows: int) -> None:
    label, logit, _ = sample(rows, 5, distinct=400)
    ordered = sorted(float(z) for z in logit)
    cuts = [ordered[i * rows // 15] for i in range(1, 15)]
    bins: list[list[int]] = [[] for _ in range(15)]
    for row, z in enumerate(logit):
        bins[sum(z >= cut for cut in cuts)].append(row)
    gaps = [abs(sum(1 / (1 + math.exp(-float(logit[r]))) - float(label[r]) for r in rows_)) for rows_ in bins]
    assert m.ece(label, logit) == pytest.approx(sum(gaps) / rows, rel=1e-9)


def test_ece_of_a_calibrated_model_is_small_and_does_not_depend_on_row_order() -> None:
    generator = np.random.default_rng(0)
    logit = generator.normal(size=200_000).astype(np.float32)
    label = (generator.random(200_000) < m.sigmoid(logit)).astype(np.float32)
    assert m.ece(label, logit) < 0.005 < m.ece(label, logit + 0.5)
    order = generator.permutation(len(label))
    assert m.ece(label[order], logit[order]) == pytest.approx(m.ece(label, logit), abs=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_gauc_is_its_loop_over_groups(seed: int) -> None:
    label, logit, group = sample(120, seed)
    weighted, impressions, skipped, skipped_rows = 0.0, 0, 0, 0
    for code in sorted(set(group.tolist())):
        rows = group == code
        if 0 < label[rows].sum() < rows.sum():
            weighted += rows.sum() * pair_auc(label[rows], logit[rows])
            impressions += int(rows.sum())
        else:
            skipped, skipped_rows = skipped + 1, skipped_rows + int(rows.sum())
    got = m.gauc(label, logit, group)
    assert got.gauc == pytest.approx(weighted / impressions, abs=1e-13)
    assert (got.num_skipped_groups, got.skipped_share) == (skipped, pytest.approx(skipped_rows / 120))
    assert got.num_groups + skipped == len(set(group.tolist()))


def test_gauc_of_one_group_is_auc_at_any_code_and_for_either_zero() -> None:
    label, logit, _ = sample(300, 9)
    logit[logit == 0] = np.where(np.arange((logit == 0).sum()) % 2, np.float32(0.0), np.float32(-0.0))
    group = np.full(300, 2**31 - 1, np.int32)
    assert m.gauc(label, logit, group).gauc == pytest.approx(m.auc(label, logit), abs=1e-13)


def test_gauc_without_a_mixed_group_is_refused() -> None:
    label = np.array([1, 0], np.float32)
    with pytest.raises(UserError, match="gAUC needs"):
        m.gauc(label, label, np.array([1, 2], np.int32))


@pytest.mark.parametrize("weighted", [False, True])
def test_samples_without_a_group_are_left_out_of_gauc_and_their_share_is_said(weighted: bool) -> None:
    label, logit, group = sample(200, 12)
    weight = np.random.default_rng(1).random(200).astype(np.float32) if weighted else None
    some = np.arange(200) % 5 == 0
    blank = np.where(some, 0, group).astype(np.int32)
    found = m.metrics(label, logit, blank, None, weight=weight)
    own = None if weight is None else weight[~some]
    rest = m.metrics(label[~some], logit[~some], group[~some], None, weight=own)
    mass = np.ones(200) if weight is None else weight.astype(np.float64)
    share = float(mass[some].sum() / mass.sum())
    assert [found[key] for key in ("gauc", "gauc_groups")] == [rest[key] for key in ("gauc", "gauc_groups")]
    assert found["gauc_blank_share"] == pytest.approx(share)
    assert found["gauc_skipped_share"] == pytest.approx(rest["gauc_skipped_share"] * (1 - share))
    assert rest["gauc_blank_share"] == 0
    with pytest.raises(UserError, match=r"gAUC needs .* 100\.0% of the samples have no group"):
        m.gauc(label, logit, np.zeros(200, np.int32), weight)


WEIGHED = {
    "auc": lambda label, logit, group, pctr, weight: m.auc(label, logit, weight),
    "bayes_auc": lambda label, logit, group, pctr, weight: m.auc(label, pctr, weight),
    "logloss": lambda label, logit, group, pctr, weight: m.logloss(label, logit, weight),
    "base_entropy": lambda label, logit, group, pctr, weight: m.base_entropy(label, weight),
    "ne": lambda label, logit, group, pctr, weight: m.metrics(label, logit, None, None, weight=weight)["ne"],
    "ece": lambda label, logit, group, pctr, weight: m.ece(label, logit, weight),
    "gauc": lambda label, logit, group, pctr, weight: m.gauc(label, logit, group, weight).gauc,
    "num_groups": lambda label, logit, group, pctr, weight: m.gauc(label, logit, group, weight).num_groups,
    "skipped_share": lambda label, logit, group, pctr, weight: m.gauc(label, logit, group, weight).skipped_share,
    "blank_share": lambda label, logit, group, pctr, weight: m.gauc(label, logit, group, weight).blank_share,
}


@pytest.mark.parametrize("name", WEIGHED)
@pytest.mark.parametrize("seed", range(5))
def test_a_whole_weight_is_so_many_equal_samples(name: str, seed: int) -> None:
    label, logit, group = sample(150, seed, distinct=[2, 7, 60, 400, 1][seed])
    generator = np.random.default_rng(seed)
    group[generator.random(150) < 0.2] = 0
    pctr = generator.random(150).astype(np.float32)
    times = generator.integers(0, 6, 150)  # 0: not there at all
    arrays = (label, logit, group, pctr)
    repeated = [np.repeat(array, times) for array in arrays]
    found = WEIGHED[name](*arrays, times.astype(np.float32))
    assert found == pytest.approx(WEIGHED[name](*repeated, None), rel=1e-12)
    scaled = (times * np.float32(0.37)).astype(np.float32)
    assert WEIGHED[name](*arrays, scaled) == pytest.approx(found, rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_weighted_metrics_are_their_loops(seed: int) -> None:
    label, logit, group = sample(80, seed)
    weight = np.exp(3 * np.random.default_rng(seed).normal(size=80)).astype(np.float32)
    assert m.auc(label, logit, weight) == pytest.approx(weighted_pair_auc(label, logit, weight), rel=1e-12)
    assert m.auc(label, logit, weight) == pytest.approx(roc_auc_score(label, logit, sample_weight=weight), rel=1e-9)
    expected = log_loss(label, m.sigmoid(logit), sample_weight=weight)
    assert m.logloss(label, logit, weight) == pytest.approx(expected, rel=1e-9)
    total = mass = 0.0
    for code in set(group.tolist()):
        rows = group == code
        if 0 < label[rows].sum() < rows.sum():
            own = float(weight[rows].sum(dtype=np.float64))
            total += own * weighted_pair_auc(label[rows], logit[rows], weight[rows])
            mass += own
    assert m.gauc(label, logit, group, weight).gauc == pytest.approx(total / mass, rel=1e-12)


def weighted_pair_auc(label: np.ndarray, logit: np.ndarray, weight: np.ndarray) -> float:
    """Every pair counts as the product of its two weights."""
    ordered = total = 0.0
    for z, w in zip(logit[label == 1], weight[label == 1].tolist(), strict=True):
        for other, v in zip(logit[label == 0], weight[label == 0].tolist(), strict=True):
            ordered += w * v * (1.0 if z > other else 0.5 if z == other else 0.0)
            total += w * v
    return ordered / total


def test_weights_over_one_class_alone_are_refused() -> None:
    label, logit, _ = sample(50, 3)
    with pytest.raises(UserError, match="weight above 0"):
        m.auc(label, logit, label)


@pytest.mark.parametrize("rate", [1.0, 0.3, 0.01])
def test_recalibration_is_its_formula(rate: float) -> None:
    logit = np.linspace(-6, 6, 25).astype(np.float32)
    p = m.sigmoid(logit)
    assert m.sigmoid(m.recalibrated(logit, rate)) == pytest.approx(p / (p + (1 - p) / rate), rel=1e-6)
    assert m.recalibrated(logit, None) is logit


def test_rela_impr() -> None:
    assert m.rela_impr(0.75, 0.70) == pytest.approx(0.25)


def test_metrics_reports_the_attainable_share_and_torchmetrics_classes() -> None:
    from torchmetrics.functional.classification import binary_auroc  # slow import: only here

    label, logit, group = sample(2000, 6, distinct=300)
    pctr = m.sigmoid(logit).astype(np.float32)
    noisy = logit + np.random.default_rng(1).normal(size=2000).astype(np.float32)
    found = m.metrics(label, noisy, group, pctr, ["torchmetrics.classification.BinaryAUROC"])
    assert found["BinaryAUROC"] == pytest.approx(found["auc"], abs=1e-6)
    assert found["bayes_auc"] == pytest.approx(m.auc(label, logit), abs=1e-4)
    assert found["attainable_share"] == pytest.approx((found["auc"] - 0.5) / (found["bayes_auc"] - 0.5))
    assert 0.5 < found["attainable_share"] < 1
    import torch

    assert float(binary_auroc(torch.from_numpy(m.sigmoid(noisy)), torch.from_numpy(label).long())) == pytest.approx(
        found["auc"], abs=1e-6
    )
    assert all(isinstance(value, float | int) for value in found.values())


def test_an_unknown_torchmetrics_class_is_named() -> None:
    label, logit, _ = sample(50, 7)
    with pytest.raises(UserError, match=r"extra_metrics.*torchmetrics\.NoSuch"):
        m.metrics(label, logit, None, None, ["torchmetrics.NoSuch"])
