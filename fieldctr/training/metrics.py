"""Exact metrics over a whole split, in float64 from float32 logits; never an average of batch values.

Source: AUC as the Mann-Whitney statistic (Hanley and McNeil 1982), ties counting half; gAUC of Zhu et al. 2017 (DIN);
normalised entropy of He et al. 2014; ECE of Naeini et al. 2015; RelaImpr of Yan et al. 2014.

Wherever a `weight` (R,) is taken, a sample of weight 3 counts as three equal ones, and one of weight 0 as none.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fieldctr.errors import UserError
from fieldctr.ranking import auc
from fieldctr.targets import Kind, imported

ECE_BINS = 15


class Grouped(NamedTuple):
    """gAUC and what it leaves out: groups whose samples are all clicks or all non-clicks have no AUC, and samples
    without a group are nobody's.
    """

    gauc: float
    num_groups: int  # with both classes: those that count
    num_skipped_groups: int
    skipped_share: float  # of the samples, by weight
    blank_share: float  # of the samples, by weight: those without a group


def metrics(
    label: np.ndarray,
    logit: np.ndarray,
    group: np.ndarray | None,
    pctr: np.ndarray | None,
    extra: Sequence[str] = (),
    *,
    weight: np.ndarray | None = None,
) -> dict[str, float]:
    """All metrics of one split: label, logit and the optional group, true pCTR and weight are (R,).

    gAUC needs `group`; the Bayes AUC and the share of it that was reached need `pctr`. `extra` names torchmetrics
    classes by import path, which know no weights: with weights their names end in _unweighted. Raises UserError when
    the labels hold one class only.
    """
    found = {
        "auc": auc(label, logit, weight),
        "logloss": logloss(label, logit, weight),
        "ece": ece(label, logit, weight),
    }
    found["ne"] = found["logloss"] / base_entropy(label, weight)
    if group is not None:
        grouped = gauc(label, logit, group, weight)
        found["gauc"] = grouped.gauc
        found["gauc_groups"] = grouped.num_groups
        found["gauc_skipped_groups"] = grouped.num_skipped_groups
        found["gauc_skipped_share"] = grouped.skipped_share
        found["gauc_blank_share"] = grouped.blank_share
    if pctr is not None:
        found["bayes_auc"] = auc(label, pctr, weight)
        found["attainable_share"] = (found["auc"] - 0.5) / (found["bayes_auc"] - 0.5)
    suffix = "" if weight is None else "_unweighted"
    return found | {path.rpartition(".")[2] + suffix: torchmetric(path, label, logit) for path in extra}


def logloss(label: np.ndarray, logit: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Mean binary cross-entropy in nats, from logits: nothing is clipped."""
    z = logit.astype(np.float64)
    losses = np.logaddexp(0, z) - label * z
    return float(losses.mean() if weight is None else np.average(losses, weights=weight))


def base_entropy(label: np.ndarray, weight: np.ndarray | None = None) -> float:
    """LogLoss in nats of always predicting the split's click rate, which must lie between 0 and 1."""
    if weight is not None:
        others, clicks = np.bincount(label > 0.5, weight, minlength=2)
        return -sum(part * math.log(part) for part in (clicks / (clicks + others), others / (clicks + others)))
    rate = float(label.mean(dtype=np.float64))
    return -(rate * math.log(rate) + (1 - rate) * math.log1p(-rate))


def ece(label: np.ndarray, logit: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Expected calibration error over 15 bins of equal mass; equal logits always share a bin."""
    gap = sigmoid(logit) - label
    if weight is None:
        ordered, cuts, total = np.sort(logit), np.arange(1, ECE_BINS) * len(logit) // ECE_BINS, len(logit)
    else:
        order = np.argsort(logit, kind="stable")
        mass = np.cumsum(weight[order], dtype=np.float64)
        ordered, gap, total = logit[order], gap * weight, mass[-1]
        cuts = np.searchsorted(mass, np.arange(1, ECE_BINS) * total / ECE_BINS, "right")
    bins = np.searchsorted(ordered[cuts], logit, "right")
    return float(np.abs(np.bincount(bins, weights=gap)).sum() / total)


def gauc(label: np.ndarray, logit: np.ndarray, group: np.ndarray, weight: np.ndarray | None = None) -> Grouped:
    """Mean AUC within groups, weighted by impressions, or by their weights, over groups with both classes.

    `group` is (R,) of codes from 1; samples of code 0 have no group and are left out: a blank is nobody, not one more
    user. Raises UserError when no group has both classes.
    """
    blank, total = group == 0, len(group) if weight is None else weight.sum(dtype=np.float64)
    left_out = float(blank.sum() if weight is None else weight[blank].sum(dtype=np.float64)) / total
    keep = ~blank if weight is None else ~blank & (weight > 0)
    if not keep.all():
        label, logit, group = label[keep], logit[keep], group[keep]
        weight = None if weight is None else weight[keep]
    found = _by_group(label, logit, group, weight) if len(label) else None
    both = found.clicks * found.others > 0 if found else np.zeros(0, bool)
    if found is None or not both.any():
        raise UserError(
            f"gAUC needs a group with clicks and non-clicks, got none; {left_out:.1%} of the samples have no group: "
            "name another dataset.group, or null"
        )
    clicks, others, wins = found.clicks[both], found.others[both], found.wins[both]
    impressions = clicks + others
    mean = float((impressions * (wins / (clicks * others))).sum() / impressions.sum())
    used = impressions.sum() / total
    return Grouped(mean, int(both.sum()), int((~both).sum()), max(0.0, float(1 - left_out - used)), left_out)


class _ByGroup(NamedTuple):
    """Counts, or sums of weights, of G groups."""

    clicks: np.ndarray  # (G,)
    others: np.ndarray  # (G,)
    wins: np.ndarray  # (G,) pairs in the right order, ties half


def _by_group(label: np.ndarray, logit: np.ndarray, group: np.ndarray, weight: np.ndarray | None) -> _ByGroup:
    """Sums by group, each of at least one row; integers stay integers."""
    key, mass = _sort_key(label, logit, group), None
    if weight is None:
        key = np.sort(key)  # one sort: by group, then logit, then label
    else:
        order = np.argsort(key)
        key, mass = key[order], weight[order].astype(np.float64)
    click = (key & np.uint64(1)).astype(np.int64)
    ties = _starts(key >> np.uint64(1))  # runs of one group and one logit
    groups = _starts(key >> np.uint64(33))
    clicks = np.add.reduceat(click if mass is None else click * mass, ties)
    others = np.diff(ties, append=len(key)) - clicks if mass is None else np.add.reduceat((1 - click) * mass, ties)
    first = np.searchsorted(ties, groups)  # each group's first run
    before = np.cumsum(others) - others
    before -= np.repeat(before[first], np.diff(first, append=len(ties)))
    wins = np.add.reduceat(clicks * (before + others / 2), first)
    return _ByGroup(np.add.reduceat(clicks, first), np.add.reduceat(others, first), wins)


def rela_impr(auc: float, base_auc: float) -> float:
    """Relative improvement over a base model: (AUC - 0.5) / (base AUC - 0.5) - 1."""
    return (auc - 0.5) / (base_auc - 0.5) - 1


def torchmetric(path: str, label: np.ndarray, logit: np.ndarray) -> float:
    """One torchmetrics class, built without arguments and given pCTR and labels of the whole split."""
    import torch

    value = metric_class(path)()(torch.from_numpy(sigmoid(logit)), torch.from_numpy(label.astype(np.int64)))
    return float(value)


def metric_class(path: str) -> Callable[[], Any]:
    """The torchmetrics class of an import path; UserError for anything else."""
    from torchmetrics import Metric  # 3.5 s, so only for those who ask

    kind = Kind(
        "a metric: a class of torchmetrics or one derived from its Metric",
        "torchmetrics.classification.BinaryAUROC",
        lambda target: inspect.isclass(target) and issubclass(target, Metric),
        packages=("torchmetrics",),
    )
    return imported(path, "trainer.extra_metrics", kind)


def recalibrated(logit: np.ndarray, negative_rate: float | None) -> np.ndarray:
    """Logits (R,) for samples as they come, of a model whose samples had all clicks and this share of the non-clicks.

    p' = p / (p + (1 - p) / r), which is logit' = logit + ln r: He et al. 2014, section 6.3. The order stays, and so do
    AUC and gAUC. None, the share where nothing was left out, gives the logits as they are.
    """
    return logit if negative_rate is None else logit.astype(np.float64) + math.log(negative_rate)


def sigmoid(logit: np.ndarray) -> np.ndarray:
    """pCTR in float64, without overflow at any logit."""
    return 0.5 * (1 + np.tanh(0.5 * logit.astype(np.float64)))


def _sort_key(label: np.ndarray, logit: np.ndarray, group: np.ndarray) -> np.ndarray:
    """31 bits of group, 32 of logit in an order that integers share, 1 of label."""
    bits = (logit.astype(np.float32) + np.float32(0)).view(np.uint32)  # + 0 makes -0.0 and 0.0 one score
    ordered = bits ^ np.where(bits >> 31, np.uint32(0xFFFFFFFF), np.uint32(0x80000000))
    return group.astype(np.uint64) << np.uint64(33) | ordered.astype(np.uint64) << np.uint64(1) | (label > 0.5)


def _starts(values: np.ndarray) -> np.ndarray:
    """Where each run of equal values begins."""
    return np.flatnonzero(np.concatenate(([True], values[1:] != values[:-1])))
