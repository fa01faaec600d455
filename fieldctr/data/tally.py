"""How many rows a table has, with reasons for those left out, and how many are clicks."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from fieldctr.data.table import SPLITS
from fieldctr.errors import LabelError, UserError


@dataclass
class Tally:
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


def by_split(numbers: list) -> dict[str, object]:
    """One number per split, by its name."""
    return dict(zip(SPLITS, numbers, strict=True))
