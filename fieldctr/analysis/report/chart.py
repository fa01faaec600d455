"""A chart as plain data, and where everything in it lies: the page draws it as SVG, `picture` as PNG.

All charts of a page have one width, so that their text is of one size and a phone shows them whole.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np

WIDTH, HEIGHT = 360.0, 230.0  # of a chart's own units: pixels on a phone
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 24.0, 34.0
NAMES = 118.0  # room on the left for names in place of numbers
ROW = 22.0  # height of a row with a name
ROOM = 0.06  # beyond the data, as a share
LETTERS = 18  # of a name that fit
SUFFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
REFERENCE, MUTED = "ref", "muted"  # tones besides t0, t1, ...
# Of each tone, on light and on dark paper. Told apart by readers who see no red or no green.
TONES = {
    "t0": ("#1f5fa8", "#7fb2f0"),
    "t1": ("#c8401f", "#f0876a"),
    "t2": ("#2a7f62", "#6fcfa8"),
    "t3": ("#8a5aa8", "#c49be0"),
    "t4": ("#a87a08", "#e0b84f"),
    "t5": ("#2f8ba5", "#7fd0e6"),
    "t6": ("#b0487a", "#e890ba"),
    REFERENCE: ("#24292f", "#e6e6e3"),
    MUTED: ("#a5a9ae", "#63676d"),
}


class Axis(NamedTuple):
    """What is measured along one side."""

    label: str
    log: bool = False
    names: tuple[str, ...] = ()  # of the positions 0, 1, ..., instead of numbers
    limits: tuple[float, float] | None = None  # what is beyond is cut off


class Mark(NamedTuple):
    """One series of points, drawn in one way."""

    kind: Literal["line", "step", "dots", "rings", "bars", "whiskers", "band"]  # bars lie, whiskers stand
    x: Sequence[float]
    y: Sequence[float]
    tone: str
    low: Sequence[float] = ()  # of bars along x, of whiskers and bands along y
    high: Sequence[float] = ()
    names: Sequence[str] = ()  # of the points, shown when pointed at
    shown: Sequence[str] = ()  # of the points, written beside them
    series: str = ""  # what it belongs to: the page brings it forward
    dashed: bool = False


class Chart(NamedTuple):
    """A picture of one finding."""

    name: str  # of its file
    title: str
    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    rule: float | None = None  # a line across at this x: no difference
    diagonal: bool = False  # a line where y = x

    @property
    def height(self) -> float:
        return TOP + BOTTOM + ROW * len(self.y.names) if self.y.names else HEIGHT


class Tick(NamedTuple):
    at: float
    text: str
    value: float


class Shape(NamedTuple):
    """A path, or a dot where `path` is empty, or a text."""

    kind: str
    tone: str
    series: str
    path: str = ""
    x: float = 0.0
    y: float = 0.0
    name: str = ""
    dashed: bool = False


class Drawing(NamedTuple):
    """A chart with every position known."""

    chart: Chart
    left: float
    height: float
    inner: tuple[float, float]  # width and height of what lies between the axes
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    shapes: list[Shape]
    rule: float | None


class Scale(NamedTuple):
    """From values to positions."""

    low: float
    high: float
    log: bool
    start: float
    end: float

    def __call__(self, value: float) -> float:
        at, low, high = (math.log(one) if self.log else one for one in (value, self.low, self.high))
        return round(self.start + (at - low) / (high - low) * (self.end - self.start), 1)


def drawing(chart: Chart) -> Drawing:
    """Where everything in the chart lies."""
    left = NAMES if chart.y.names else LEFT
    width, height = WIDTH - left - RIGHT, chart.height - TOP - BOTTOM
    x, y = scales(chart, width, height)
    shapes = [shape for mark in chart.marks for shape in _shapes(mark, x, y)]
    if chart.diagonal:
        low, high = max(x.low, y.low), min(x.high, y.high)
        shapes.insert(0, Shape("line", MUTED, "", _path([(x(low), y(low)), (x(high), y(high))]), dashed=True))
    rule = None if chart.rule is None else x(chart.rule)
    return Drawing(chart, left, chart.height, (width, height), ticks(chart.x, x), ticks(chart.y, y), shapes, rule)


def scales(chart: Chart, width: float, height: float) -> tuple[Scale, Scale]:
    """Of both axes, within a rectangle whose y points down."""
    across = [at for mark in chart.marks for at in (*mark.x, *(bounds(mark) if mark.kind == "bars" else ()))]
    standing = ("whiskers", "band")
    up = [at for mark in chart.marks for at in (*mark.y, *(bounds(mark) if mark.kind in standing else ()))]
    x_low, x_high = _domain(chart.x, across if chart.rule is None else [*across, chart.rule])
    y_low, y_high = _domain(chart.y, up)
    first, last = (0.0, height) if chart.y.names else (height, 0.0)
    return Scale(x_low, x_high, chart.x.log, 0.0, width), Scale(y_low, y_high, chart.y.log, first, last)


def bounds(mark: Mark) -> list[float]:
    return [*mark.low, *mark.high]


def _domain(axis: Axis, values: Iterable[float]) -> tuple[float, float]:
    if axis.names:
        return -0.5, len(axis.names) - 0.5
    if axis.limits:
        return axis.limits
    known = [value for value in values if math.isfinite(value) and (value > 0 or not axis.log)]
    low, high = (min(known), max(known)) if known else (1.0, 2.0)
    if axis.log:
        room = (high / low) ** ROOM if high > low else 2.0
        return low / room, high * room
    room = ROOM * (high - low) or abs(high) * ROOM or 1.0
    return low - room, high + room


def ticks(axis: Axis, scale: Scale) -> list[Tick]:
    """Round numbers along an axis, or its names."""
    if axis.names:
        return [Tick(scale(at), name, at) for at, name in enumerate(axis.names)]
    from matplotlib.ticker import LogLocator, MaxNLocator

    if axis.log:
        locator = LogLocator(subs=(1.0, 2.0, 5.0) if scale.high < 50 * scale.low else (1.0,), numticks=6)
        found = [float(at) for at in locator.tick_values(scale.low, scale.high) if scale.low <= at <= scale.high]
        if len(found) >= 2:
            return [Tick(scale(at), short(at), at) for at in found]
    found = MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(scale.low, scale.high)
    digits = decimals(float(found[1] - found[0]))
    inside = [float(at) for at in found if scale.low <= at <= scale.high]
    large = max(map(abs, inside), default=0.0) >= 1e4
    return [Tick(scale(at), short(at) if large else signless(f"{at:.{digits}f}"), at) for at in inside]


def decimals(step: float) -> int:
    """How many a multiple of `step` needs."""
    return next((digits for digits in range(9) if math.isclose(round(step, digits), step, rel_tol=1e-6)), 9)


def signless(number: str) -> str:
    """With the minus of typography, and none before zero."""
    return number.lstrip("-") if not number.strip("-0.") else number.replace("-", "\N{MINUS SIGN}")


def short(value: float) -> str:
    """12.5k for 12,500."""
    for unit, suffix in SUFFIXES:
        if abs(value) >= unit:
            return f"{value / unit:.3g}{suffix}"
    return f"{value:.3g}"


def _shapes(mark: Mark, x: Scale, y: Scale) -> Iterable[Shape]:
    own = (mark.tone, mark.series)
    rows = [
        i
        for i in range(len(mark.x))
        if all(math.isfinite(at) and (at > 0 or not scale.log) for at, scale in ((mark.x[i], x), (mark.y[i], y)))
    ]
    points = [(x(mark.x[i]), y(mark.y[i])) for i in rows]
    name = mark.names[0] if mark.names else ""
    if mark.kind in ("line", "step"):
        if points:
            yield Shape(mark.kind, *own, _path(points, step=mark.kind == "step"), name=name, dashed=mark.dashed)
    elif mark.kind == "band":
        edge = [(x(mark.x[i]), y(mark.high[i])) for i in rows] + [(x(mark.x[i]), y(mark.low[i])) for i in rows[::-1]]
        yield Shape("band", *own, f"{_path(edge)}Z", name=name)
    elif mark.kind in ("bars", "whiskers"):
        for i, (across, up) in zip(rows, points, strict=True):
            scale = x if mark.kind == "bars" else y
            low, high = scale(mark.low[i]), scale(mark.high[i])
            ends = [(low, up), (high, up)] if mark.kind == "bars" else [(across, low), (across, high)]
            yield Shape("bar", *own, _path(ends), name=mark.names[i] if mark.names else "")
    else:
        for i, (across, up) in zip(rows, points, strict=True):
            yield Shape(mark.kind, *own, x=across, y=up, name=mark.names[i] if mark.names else "")
    for i, (across, up) in zip(rows, points, strict=True):
        if mark.shown and mark.shown[i]:
            yield Shape("text", *own, x=across, y=up, name=clipped(mark.shown[i]))


def _path(points: Sequence[tuple[float, float]], *, step: bool = False) -> str:
    first, *others = points
    moves = [f"H{x:g}V{y:g}" if step else f"L{x:g} {y:g}" for x, y in others]
    return f"M{first[0]:g} {first[1]:g}{''.join(moves)}"


def clipped(name: str) -> str:
    """As much of a name as fits beside a chart."""
    return name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}\N{HORIZONTAL ELLIPSIS}"


def thinned(count: int, most: int) -> np.ndarray:
    """Indices of at most `most` of `count` points, evenly, with the first and the last."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))
