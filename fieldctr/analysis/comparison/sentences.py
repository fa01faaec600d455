"""What may be said of a difference, in one plain sentence."""

import math
from collections.abc import Mapping
from typing import Any

from fieldctr.analysis.comparison.effects import METRICS

PLAIN = 4  # decimals, if the error is not smaller than they show
MOST = 7


def verdict(pair: Mapping[str, Any], *, level: float, bound: float | None) -> str:
    """better, worse, no larger difference than the bound, or undecided: of the arm, by p after Holm."""
    gain = METRICS[pair["metric"]].better * pair["difference"]
    if pair["p_holm"] < 1 - level:
        return "better" if gain > 0 else "worse"
    if bound is not None and pair["equivalence"] <= bound:
        return f"no larger difference than {bound:g}"
    return "undecided"


def sentence(pair: Mapping[str, Any], *, level: float, bound: float | None) -> str:
    """With the interval, p after Holm, and what it rests on."""
    metric = METRICS[pair["metric"]]
    digits = decimals(pair)
    arm, other, word = pair["arm"], pair["against"], pair["verdict"]
    sides = sorted(metric.better * pair[key] for key in ("low", "high")), metric.better * pair["difference"]
    if word in ("better", "worse"):
        sign = 1 if word == "better" else -1
        low, high = sorted(sign * side for side in sides[0])
        text = (
            f"{arm} is {word} than {other} by {sign * sides[1]:.{digits}f} {metric.name} "
            f"({percent(level)} interval {low:.{digits}f} to {high:.{digits}f}"
        )
    else:
        text = (
            f"{arm} and {other} are not told apart in {metric.name}: {arm} minus {other} is "
            f"{pair['difference']:+.{digits}f} ({percent(level)} interval {pair['low']:+.{digits}f} to "
            f"{pair['high']:+.{digits}f}"
        )
    text += f", {spelled_p(pair['p_holm'])} after Holm, {basis(pair)})"
    if word == "undecided":
        text += (
            f". A difference of more than {pair['equivalence']:.{digits}f} is ruled out; one of "
            f"{pair['detectable']:.{digits}f} would have been found with 80 % power"
        )
    elif word.startswith("no larger"):
        text += f". A difference of more than {bound:g} is ruled out ({percent(level)})"
    elif bound is not None and pair["equivalence"] <= bound:
        text += f". It is real, and no larger than {bound:g}"
    return f"{text}. {pair['unfair']}." if pair["unfair"] else f"{text}."


def basis(pair: Mapping[str, Any]) -> str:
    """'5 seeds, 28,905 rows of 9,870 users'."""
    seeds = f"{pair['num_seeds']} seed{'s' if pair['num_seeds'] > 1 else ''}"
    if pair["error_seeds"] is None:
        seeds = "one seed, so rows only" if pair["num_seeds"] == 1 else "no shared seed, so rows only"
    rows = f"{pair['num_rows']:,} rows"
    return f"{seeds}, {rows}" + (f" of {pair['num_clusters']:,} {plural(pair['clusters'])}" if pair["clusters"] else "")


def plural(unit: str) -> str:
    """'users' of user; what is no plain word is a column's name: 'values of AgeGroup'."""
    return f"{unit}s" if unit.isalpha() and unit.islower() else f"values of {unit}"


def spelled_p(p: float) -> str:
    """'p < 0.001', 'p = 0.013', 'p = 0.41'."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def decimals(pair: Mapping[str, Any]) -> int:
    """As many as show a digit of the error, four at least."""
    error = pair["error"]
    return PLAIN if error <= 0 else min(MOST, max(PLAIN, -math.floor(math.log10(error))))


def percent(level: float) -> str:
    """A share as a text: 0.95 is '95 %'."""
    return f"{100 * level:g} %"
