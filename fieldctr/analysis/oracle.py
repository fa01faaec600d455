"""The in-sample oracle: what the labels' own means reach on the rows that they come from.

No function of these fields alone does better on these rows: a ceiling. It is a loose one where few rows share a cell.
"""

import numpy as np

from fieldctr.ranking import counted_auc


def oracle(cell: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """AUC and LogLoss (nats) of rows (n,) scored with the click rate of their cell among these very rows."""
    _, cell = np.unique(cell, return_inverse=True)
    rows = np.bincount(cell)
    clicks = np.bincount(cell, label)
    return {"auc": counted_auc(clicks / rows, clicks, rows - clicks), "logloss": _entropy(clicks, rows)}


def _entropy(clicks: np.ndarray, rows: np.ndarray) -> float:
    """Mean over rows of the entropy of their cell's click rate; 0 ln 0 is 0."""
    parts = (part * np.log(np.where(part > 0, part / rows, 1)) for part in (clicks, rows - clicks))
    return abs(float(sum(part.sum() for part in parts))) / float(rows.sum())
