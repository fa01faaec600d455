"""How many rows a table has, with reasons for those left out, and how many are clicks."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from fieldctr.data.table import SPLITS
from fieldctr.errors import LabelError, UserError


@dataclass
class RowCounts:
    """What pass one counts."""

    rows: np.ndarray = field(default_factory=lambda: np.zeros(len(SPLITS), np.int64))
    clicks: np.ndarray = field(default_factory=lambda: np.zeros(len(SPLITS), np.int64))
    dropped: Counter[str] = field(default_factory=Counter)
    events: int = 0  # rows that are no samples

    def add(self, split: int, label: np.ndarray) -> None:
        """Count labels (n,) of one split."""
        self.rows[split] += len(label)
        self.clicks[split] += int(label.sum())

    def facts(self) -> dict[str, object]:
        """Rows in and out, and positive rates."""
        read = int(self.rows.sum()) + self.dropped.total()
        events = {"events": self.events} if self.events else {}
        return {
            "rows": {"read": read, "dropped": dict(self.dropped), **by_split(self.rows.tolist())},
            "positive_rate": by_split((self.clicks / self.rows).tolist()),
        } | events

    def refuse_degenerate(self) -> None:
        """UserError for an empty split, or one whose labels are all equal: no AUC could be computed on it."""
        for split, rows, clicks in zip(SPLITS, self.rows.tolist(), self.clicks.tolist(), strict=True):
            if not rows:
                raise UserError(f"split '{split}' is empty ({self.facts_line()}). Change the split rule.")
            if clicks in (0, rows):
                raise LabelError(f"label is constant in split '{split}': {rows:,} rows, all {int(clicks > 0)}")

    def facts_line(self) -> str:
        kept = ", ".join(f"{split} {rows:,}" for split, rows in zip(SPLITS, self.rows.tolist(), strict=True))
        return f"{kept}; dropped {self.dropped.total():,}"


def weight_facts(column: str, sums: np.ndarray, rows: np.ndarray) -> dict[str, object]:
    """Mean weight and weighted positive rate per split: from (3, 2) sums over non-clicks and clicks, and (3,) rows.

    UserError for a split of which one class weighs nothing: no AUC could be computed on it.
    """
    for split, (others, clicks) in zip(SPLITS, sums.tolist(), strict=True):
        if not others or not clicks:
            raise UserError(
                f"the weights in column '{column}' sum to {clicks:g} over the clicks of split '{split}' and to "
                f"{others:g} over its other rows, expected both above 0. Change the weights or the split rule."
            )
    whole = sums.sum(1)
    mean, rate = by_split((whole / rows).tolist()), by_split((sums[:, 1] / whole).tolist())
    return {"column": column, "mean": mean, "positive_rate": rate}


def by_split(numbers: list) -> dict[str, object]:
    """One number per split, by its name."""
    return dict(zip(SPLITS, numbers, strict=True))
