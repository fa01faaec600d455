"""How cost grows with size: exponents fitted on a log-log scale, and which of them are above what they may be."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from fieldctr.analysis.report.chart import Axis, Chart, Mark
from fieldctr.analysis.scaling.report import table

Measure = Literal["cpu_s", "memory_mb"]
MEASURES: dict[Measure, str] = {"cpu_s": "CPU s", "memory_mb": "MB"}
MOST = {  # the exponent that each may have, by what grows, what is done and what it takes
    ("rows", "prepare", "cpu_s"): 1.05,
    ("rows", "prepare", "memory_mb"): 1.05,
    ("rows", "evaluate", "cpu_s"): 1.05,
    ("rows", "evaluate", "memory_mb"): 1.05,
    ("vocabulary", "step", "cpu_s"): 1.0,
}
LEAST_MB = 1.0  # what is less is taken for this: the system counts in pages


class Point(NamedTuple):
    """What some work took at one size, or why it was not done."""

    axis: str  # what grows
    work: str
    size: int
    cpu_s: float | None = None
    memory_mb: float | None = None  # that the work added to the process
    refused: str = ""


class Slope(NamedTuple):
    """The exponent of one cost along one axis."""

    axis: str
    work: str
    measure: Measure
    exponent: float
    most: float | None  # None: none is stated

    @property
    def above(self) -> bool:
        return self.most is not None and self.exponent > self.most


def slopes(points: Iterable[Point]) -> list[Slope]:
    """The exponents of all costs that were measured at two sizes or more."""
    lines: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        if not point.refused:
            lines.setdefault((point.axis, point.work), []).append(point)
    return [
        Slope(
            axis, work, measure, exponent([x.size for x in own], costs(own, measure)), MOST.get((axis, work, measure))
        )
        for (axis, work), own in lines.items()
        if len({point.size for point in own}) > 1
        for measure in MEASURES
    ]


def costs(points: Iterable[Point], measure: Measure) -> list[float]:
    """One measure of points that were not refused."""
    found = (getattr(point, measure) for point in points)
    return [max(cost, LEAST_MB) if measure == "memory_mb" else cost for cost in found]


def exponent(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """The slope of log cost on log size by least squares, over the larger half of the sizes, three at least.

    What a start costs hides at small sizes how the rest grows.
    """
    pairs = sorted(zip(sizes, costs, strict=True))[-max(3, math.ceil(len(sizes) / 2)) :]
    x, y = np.log(np.array(pairs)).T
    return float(np.polyfit(x, y, 1)[0])


def markdown(points: Sequence[Point], found: Sequence[Slope]) -> str:
    """A table of what was measured, one of exponents, and a sentence."""
    rows = [
        (x.axis, x.work, f"{x.size:,}", *((x.refused, "") if x.refused else (f"{x.cpu_s:.4g}", f"{x.memory_mb:,.0f}")))
        for x in points
    ]
    fits = [
        (x.axis, x.work, MEASURES[x.measure], f"{x.exponent:.2f}", f"{x.most or ''}", "above" if x.above else "")
        for x in found
    ]
    above = [f"{x.work} in {x.axis} ({MEASURES[x.measure]}): {x.exponent:.2f}" for x in found if x.above]
    measured = table(("grows", "work", "size", "CPU s", "MB added"), rows)
    fitted = table(("grows", "work", "cost", "exponent", "at most", ""), fits)
    verdict = f"Above what it may be: {'; '.join(above)}." if above else "No exponent is above what it may be."
    return f"{measured}\n\n{fitted}\n\n{verdict}\n"


def charts(points: Sequence[Point], found: Sequence[Slope]) -> list[Chart]:
    """For each axis its time and its memory, with the exponents as names."""
    made = []
    for axis in dict.fromkeys(slope.axis for slope in found):
        for measure, unit in MEASURES.items():
            marks = []
            fits = [slope for slope in found if (slope.axis, slope.measure) == (axis, measure)]
            for number, fit in enumerate(fits):
                own = [x for x in points if (x.axis, x.work) == (axis, fit.work) and not x.refused]
                line: dict[str, Any] = {"x": [x.size for x in own], "y": costs(own, measure), "tone": f"t{number}"}
                name = f"{fit.work}: {fit.exponent:.2f}"
                marks += [Mark("line", **line, series=name), Mark("dots", **line, series=name)]
            title = f"{unit} by {axis}"
            made.append(Chart(f"{axis}_{measure}", title, Axis(axis, log=True), Axis(unit, log=True), tuple(marks)))
    return made
