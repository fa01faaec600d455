"""How numbers are written on the page."""

from collections.abc import Mapping, Sequence
from typing import Any

from fieldctr.analysis.comparison.effects import METRICS
from fieldctr.analysis.comparison.sentences import decimals, spelled_p
from fieldctr.analysis.report.chart import signless


def called(metric: str) -> str:
    """A metric's name for readers."""
    return METRICS[metric].name


def lower(metric: str) -> bool:
    """Whether a smaller value of the metric is the better one."""
    return METRICS[metric].better < 0


def fixed(value: float | None, digits: int = 4) -> str:
    """With as many decimals as its column; empty where there is none."""
    return "" if value is None else signless(f"{value:.{digits}f}")


def signed(value: float | None, digits: int = 4) -> str:
    """With a sign, and as many decimals as its column; empty where there is none."""
    return "" if value is None else signless(f"{value:+.{digits}f}")


def digits_of(differences: Sequence[Mapping[str, Any]]) -> int:
    """Decimals for a column of differences: what the most certain of them deserves."""
    return max(map(decimals, differences), default=4)


def p_value(p: float) -> str:
    """'< 0.001', '0.013'."""
    return spelled_p(p).removeprefix("p ").removeprefix("= ")


def seconds(value: float | None) -> str:
    """4 s, 3.2 min, 1.5 h."""
    if value is None:
        return ""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if value >= 2 * size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.0f} s" if value >= 10 else f"{value:.2g} s"


def setting(value: Any) -> str:
    """The value of a hyper-parameter, its number with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def group_of(comparison: Mapping[str, Any], metric: str, arm: str) -> int | None:
    """The arm's place among the groups that were told apart, from 1, the best."""
    return next((place for place, names in enumerate(comparison["groups"][metric], 1) if arm in names), None)
