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
    return label, logit, generator.integers(0, max(2, rows // 6), rows).astype(np.int32)


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
    assert m.normalized_entropy(label, constant) == pytest.approx(1.0, abs=1e-6)


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
        m.gauc(label, label, np.array([0, 1], np.int32))


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
