"""What a prepared table knows of new rows: per field how many have no value, and how many values train never saw."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

FAR = 0.2  # a share that is so much larger than on valid
CHANCE = 1e-3  # how rarely it is so by chance


class Coverage(NamedTuple):
    """What is missing and unseen of one field."""

    rows: int
    missing: int  # rows without a value
    values: int  # that the rows have
    unseen: int  # of them without an id; 0 for numbers, and for hashes, which need no vocabulary


def by_field(coverage: Mapping[str, Coverage], facts: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """Per field the shares of new rows, and beside them those of the table's validation split; None of nothing."""
    return {
        name: {
            "missing": _share(own.missing, own.rows),
            "missing_in_valid": facts[name]["missing"]["valid"],
            "unseen": _share(own.unseen, own.values),
            "unseen_in_valid": facts[name]["unseen"]["valid"],
        }
        for name, own in coverage.items()
    }


def warnings(coverage: Mapping[str, Coverage], facts: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each field whose new values are not those that the model was trained on."""
    for name, own in coverage.items():
        for what, count, total in (("unseen", own.unseen, own.values), ("missing", own.missing, own.rows)):
            usual = facts[name][what]["valid"]
            if not total or usual > 1 - FAR:
                continue
            share = count / total
            if share < 1 and (share < usual + FAR or _by_chance(count, total, usual) > CHANCE):
                continue
            unseen = "have no vector" if facts[name]["kind"] == "vector" else "were not seen in train"
            said = f"of the values {unseen}" if what == "unseen" else "of the rows have no value"
            yield (
                f"field '{name}': {'all' if share == 1 else f'{share:.1%}'} {said}, {usual:.1%} in the validation "
                f"split: pCTR is about rows that the model was not trained on. Is the column written as it was then?"
            )


def _share(count: int, total: int) -> float | None:
    return count / total if total else None


def _by_chance(count: int, total: int, usual: float) -> float:
    """Bound on the probability of `count` or more of `total` at the usual share (Chernoff 1952)."""
    share, usual = count / total, min(max(usual, 1 / total), 1 - 1e-9)
    if share <= usual:
        return 1.0
    rest = (1 - share) * math.log((1 - share) / (1 - usual)) if share < 1 else 0.0
    return math.exp(-total * (share * math.log(share / usual) + rest))
