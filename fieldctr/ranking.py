"""The area under the ROC curve: the table's best possible one and a model's are computed by the same lines.

Source: Hanley and McNeil, Radiology 1982: AUC as the Mann-Whitney statistic.
"""

import numpy as np

from fieldctr.errors import UserError


def auc(label: np.ndarray, score: np.ndarray) -> float:
    """Share of (click, non-click) pairs in the right order, ties half. Any increasing function of pCTR will do."""
    clicked = label > 0.5
    positive, negative = np.sort(score[clicked]), np.sort(score[~clicked])
    if not len(positive) or not len(negative):
        raise UserError(f"AUC needs clicks and non-clicks, got {len(positive)} and {len(negative)}: use another split")
    few, many = sorted((positive, negative), key=len)  # searching the few in the many takes half the time
    below = int(np.searchsorted(many, few, "left").sum()) + int(np.searchsorted(many, few, "right").sum())
    share = below / (2 * len(few) * len(many))
    return share if few is positive else 1 - share


def counted_auc(score: np.ndarray, clicks: np.ndarray, others: np.ndarray) -> float:
    """`auc` of samples counted by value: value v has score[v], clicks[v] clicks and others[v] non-clicks."""
    _, run = np.unique(score, return_inverse=True)
    positive, negative = np.bincount(run, clicks), np.bincount(run, others)
    below = np.cumsum(negative) - negative
    return float((positive * (below + negative / 2)).sum() / (positive.sum() * negative.sum()))
