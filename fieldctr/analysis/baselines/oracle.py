"""The in-sample oracle: what the labels' own means reach on the rows that they come from.

No function of these fields alone does better on these rows: a ceiling. It is a loose one where few rows share a cell;
how loose, labels in random order tell: what the oracle reaches on them is memory alone.
"""

import numpy as np

from fieldctr.ranking import counted_auc


def oracle(cell: np.ndarray, label: np.ndarray, weight: np.ndarray | None = None) -> dict[str, float]:
    """AUC and LogLoss (nats) of rows (n,) scored with the click rate of their cell among these very rows."""
    _, cell = np.unique(cell, return_inverse=True)
    rows, clicks = _counts(cell, label, weight)
    return {"auc": _auc(rows, clicks), "logloss": _entropy(clicks, rows)}


def by_chance(cell: np.ndarray, label: np.ndarray, weight: np.ndarray | None = None) -> float:
    """AUC of the oracle once the labels are shuffled: what it reaches where the cells know nothing."""
    _, cell = np.unique(cell, return_inverse=True)
    return _auc(*_counts(cell, np.random.default_rng(0).permutation(label), weight))


def _counts(cell: np.ndarray, label: np.ndarray, weight: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """(cells,) rows and clicks, or the sums of their weights."""
    clicks = np.bincount(cell, label if weight is None else label * weight)
    return np.bincount(cell, weight).astype(float), clicks


def _auc(rows: np.ndarray, clicks: np.ndarray) -> float:
    return counted_auc(clicks / np.where(rows > 0, rows, 1), clicks, rows - clicks)


def _entropy(clicks: np.ndarray, rows: np.ndarray) -> float:
    """Mean over rows of the entropy of their cell's click rate; 0 ln 0 is 0."""
    cells = np.where(rows > 0, rows, 1)
    parts = (part * np.log(np.where(part > 0, part / cells, 1)) for part in (clicks, rows - clicks))
    return abs(float(sum(part.sum() for part in parts))) / float(rows.sum())
