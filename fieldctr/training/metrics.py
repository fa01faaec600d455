"""Exact metrics over a whole split, in float64 from float32 logits; never an average of batch values.

Source: AUC as the Mann-Whitney statistic (Hanley and McNeil 1982), ties counting half; gAUC of Zhu et al. 2017 (DIN);
normalised entropy of He et al. 2014; ECE of Naeini et al. 2015; RelaImpr of Yan et al. 2014.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fieldctr.config import locate
from fieldctr.errors import UserError
from fieldctr.ranking import auc

ECE_BINS = 15


class Grouped(NamedTuple):
    """gAUC and what it leaves out: groups whose samples are all clicks or all non-clicks have no AUC."""

    gauc: float
    num_groups: int  # with both classes: those that count
    num_skipped_groups: int
    skipped_share: float  # of the samples


def metrics(
    label: np.ndarray, logit: np.ndarray, group: np.ndarray | None, pctr: np.ndarray | None, extra: Sequence[str] = ()
) -> dict[str, float]:
    """All metrics of one split: label, logit and the optional group and true pCTR are (R,).

    gAUC needs `group`; the Bayes AUC and the share of it that was reached need `pctr`. `extra` names torchmetrics
    classes by import path. Raises UserError when the labels hold one class only.
    """
    found = {
        "auc": auc(label, logit),
        "logloss": logloss(label, logit),
        "ece": ece(label, logit),
    }
    found["ne"] = found["logloss"] / base_entropy(label)
    if group is not None:
        grouped = gauc(label, logit, group)
        found["gauc"] = grouped.gauc
        found["gauc_groups"] = grouped.num_groups
        found["gauc_skipped_groups"] = grouped.num_skipped_groups
        found["gauc_skipped_share"] = grouped.skipped_share
    if pctr is not None:
        found["bayes_auc"] = auc(label, pctr)
        found["attainable_share"] = (found["auc"] - 0.5) / (found["bayes_auc"] - 0.5)
    return found | {path.rpartition(".")[2]: torchmetric(path, label, logit) for path in extra}


def logloss(label: np.ndarray, logit: np.ndarray) -> float:
    """Mean binary cross-entropy in nats, from logits: nothing is clipped."""
    z = logit.astype(np.float64)
    return float((np.logaddexp(0, z) - label * z).mean())


def normalized_entropy(label: np.ndarray, logit: np.ndarray) -> float:
    """LogLoss over that of always predicting the split's click rate: below 1 is better than knowing nothing."""
    return logloss(label, logit) / base_entropy(label)


def base_entropy(label: np.ndarray) -> float:
    """LogLoss in nats of always predicting the split's click rate, which must lie between 0 and 1."""
    rate = float(label.mean(dtype=np.float64))
    return -(rate * math.log(rate) + (1 - rate) * math.log1p(-rate))


def ece(label: np.ndarray, logit: np.ndarray) -> float:
    """Expected calibration error over 15 bins of equal mass; equal logits always share a bin."""
    cuts = np.arange(1, ECE_BINS) * len(logit) // ECE_BINS
    bins = np.searchsorted(np.sort(logit)[cuts], logit, "right")
    gap = sigmoid(logit) - label
    return float(np.abs(np.bincount(bins, weights=gap)).sum() / len(logit))


def gauc(label: np.ndarray, logit: np.ndarray, group: np.ndarray) -> Grouped:
    """Mean AUC within groups, weighted by impressions, over groups with both classes.

    `group` is (R,) of codes >= 0. Raises UserError when no group has both classes.
    """
    key = np.sort(_sort_key(label, logit, group))  # one sort: by group, then logit, then label
    click = (key & np.uint64(1)).astype(np.int64)
    ties = _starts(key >> np.uint64(1))  # runs of one group and one logit
    groups = _starts(key >> np.uint64(33))
    clicks, size = np.add.reduceat(click, ties), np.diff(ties, append=len(key))
    others = size - clicks
    first = np.searchsorted(ties, groups)  # each group's first run
    before = np.cumsum(others) - others
    before -= np.repeat(before[first], np.diff(first, append=len(ties)))
    wins = np.add.reduceat(clicks * (before + others / 2), first)
    positives, impressions = np.add.reduceat(clicks, first), np.diff(groups, append=len(key))
    pairs = positives * (impressions - positives)
    both = pairs > 0
    if not both.any():
        raise UserError("gAUC needs a group with clicks and non-clicks, got none: name another dataset.group, or null")
    used = int(impressions[both].sum())
    mean = float((impressions[both] * (wins[both] / pairs[both])).sum() / used)
    return Grouped(mean, int(both.sum()), int((~both).sum()), 1 - used / len(key))


def rela_impr(auc: float, base_auc: float) -> float:
    """Relative improvement over a base model: (AUC - 0.5) / (base AUC - 0.5) - 1."""
    return (auc - 0.5) / (base_auc - 0.5) - 1


def torchmetric(path: str, label: np.ndarray, logit: np.ndarray) -> float:
    """One torchmetrics class, built without arguments and given pCTR and labels of the whole split."""
    import torch  # with torchmetrics: 3.5 s, so only for those who ask

    metric = locate({"_target_": path}, "trainer.extra_metrics")()
    value = metric(torch.from_numpy(sigmoid(logit)), torch.from_numpy(label.astype(np.int64)))
    return float(value)


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
