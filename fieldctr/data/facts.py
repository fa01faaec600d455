"""What is worth knowing about a prepared table: rows with reasons, positive rates, vocabularies, unseen shares."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fieldctr.data.encoding import Encoding, Rule
from fieldctr.data.lexicon import Buckets, Lexicon
from fieldctr.data.reader import Reader
from fieldctr.data.statistics import Seen
from fieldctr.data.table import SPLITS
from fieldctr.errors import UserError
from fieldctr.ranking import auc


@dataclass
class Tally:
    """What pass one counts."""

    rows: np.ndarray = field(default_factory=lambda: np.zeros(len(SPLITS), np.int64))
    clicks: np.ndarray = field(default_factory=lambda: np.zeros(len(SPLITS), np.int64))
    dropped: Counter[str] = field(default_factory=Counter)

    def add(self, split: int, label: np.ndarray) -> None:
        """Count labels (n,) of one split."""
        self.rows[split] += len(label)
        self.clicks[split] += int(label.sum())

    def facts(self) -> dict[str, object]:
        """Rows in and out, and positive rates."""
        read = int(self.rows.sum()) + self.dropped.total()
        return {
            "rows": {"read": read, "dropped": dict(self.dropped), **_by_split(self.rows.tolist())},
            "positive_rate": _by_split((self.clicks / self.rows).tolist()),
        }

    def refuse_degenerate(self) -> None:
        """UserError for an empty split, or one whose labels are all equal: no AUC could be computed on it."""
        for split, rows, clicks in zip(SPLITS, self.rows.tolist(), self.clicks.tolist(), strict=True):
            if not rows:
                raise UserError(f"split '{split}' is empty ({self.facts_line()}). Change the split rule.")
            if clicks in (0, rows):
                raise UserError(f"label is constant in split '{split}': {rows:,} rows, all {int(clicks > 0)}")

    def facts_line(self) -> str:
        kept = ", ".join(f"{split} {rows:,}" for split, rows in zip(SPLITS, self.rows.tolist(), strict=True))
        return f"{kept}; dropped {self.dropped.total():,}"


def field_facts(reader: Reader, encoding: Encoding, rules: list[Rule], tally: Tally, seen: Seen) -> dict[str, object]:
    """Per field: kind, vocab_size, and per split the share of rows without a value and of values without an id.

    A hashed field has, in place of the latter, the share of values in buckets that no train row fills, and `filled`.
    `seen` has these shares for statistics, where a value without an id is one that no train row has, and for histories.
    """
    plain = len(encoding.specs) - len(seen.missing)
    missing = [*(reader.missing / tally.rows[:, None]).T[:plain], *seen.missing]
    unseen = [*map(_unseen, reader.lexicons[:plain], rules[:plain]), *seen.unseen]
    lexicons = [*reader.lexicons[:plain], *(None for _ in seen.missing)]
    return {
        spec.name: {
            "kind": spec.kind,
            "vocab_size": encoding.schema().fields[i].vocab_size,
            "missing": _by_split(missing[i].tolist()),
            "unseen": _by_split(unseen[i].tolist()),
            **({"filled": lexicon.filled()} if isinstance(lexicon, Buckets) else {}),
        }
        for i, (spec, lexicon) in enumerate(zip(encoding.specs, lexicons, strict=True))
    }


def _unseen(lexicon: Lexicon | Buckets | None, rule: Rule) -> np.ndarray:
    if isinstance(lexicon, Buckets):
        return lexicon.unseen()
    return lexicon.unseen(rule) if lexicon and isinstance(rule, np.ndarray) else np.zeros(len(SPLITS))


def attainable(folder: Path) -> dict[str, object]:
    """Per split the AUC and log loss of the true click probabilities against the labels that were drawn from them."""
    best, logloss = {}, {}
    for split in SPLITS:
        p, label = (np.load(folder / f"{split}.{name}.npy").astype(np.float64) for name in ("pctr", "label"))
        best[split] = auc(label, p)
        logloss[split] = float(-np.where(label > 0, np.log(p), np.log1p(-p)).mean())
    return {"bayes_auc": best, "bayes_logloss": logloss}


def _by_split(numbers: list) -> dict[str, object]:
    return dict(zip(SPLITS, numbers, strict=True))
