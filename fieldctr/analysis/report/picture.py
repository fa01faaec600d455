"""A chart as a PNG file, for slides and papers: what the page shows as SVG, drawn by matplotlib."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from fieldctr.analysis.plots import SETTINGS, plain
from fieldctr.analysis.report.chart import TONES, WIDTH, Axis, Chart, Mark, Scale, bounds, clipped, scales, ticks
from fieldctr.disk import replacing

STYLE: Any = SETTINGS | {"axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 200}
UNIT = 100  # of a chart's, in an inch
DASHES = (0, (4, 2))


def save_png(chart: Chart, stem: Path) -> Path:
    """Write the chart as stem.png, whole or not at all."""
    path = stem.with_name(f"{stem.name}.png")
    with mpl.rc_context(STYLE), replacing(path) as temporary:
        figure(chart).savefig(temporary, format="png", metadata={"Software": None})
    return path


def figure(chart: Chart) -> Figure:
    """The chart as matplotlib draws it."""
    picture = Figure(figsize=(1.3 * WIDTH / UNIT, 1.3 * chart.height / UNIT), layout="constrained")
    _fill(picture.add_subplot(), chart)
    return picture


def sheet(charts: Sequence[Chart], title: str) -> Figure:
    """Charts side by side, two in a row, under one title."""
    rows = -(-len(charts) // 2)
    size = (1.1 * min(2, len(charts)) * WIDTH / UNIT, 1.1 * rows * max(chart.height for chart in charts) / UNIT)
    with mpl.rc_context(STYLE):
        picture = Figure(figsize=size, layout="constrained", dpi=SETTINGS["figure.dpi"])
        picture.suptitle(plain(title), fontsize=9)
        for place, chart in enumerate(charts, 1):
            _fill(picture.add_subplot(rows, min(2, len(charts)), place), chart)
    return picture


def _fill(axes: Any, chart: Chart) -> None:
    for mark in chart.marks:
        _draw(axes, mark)
    x, y = scales(chart, 1.0, 1.0)
    _axis(axes.xaxis, chart.x, x)
    _axis(axes.yaxis, chart.y, y)
    if chart.y.names:
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
    if chart.rule is not None:
        axes.axvline(chart.rule, color="0.4", linewidth=0.8, zorder=0)
    if chart.diagonal:
        axes.axline((x.low, x.low), slope=1, color="0.6", linewidth=0.8, linestyle=DASHES, zorder=0)
    axes.set_title(plain(chart.title), fontsize=9, loc="left")
    tones = {mark.series: TONES[mark.tone][0] for mark in chart.marks if mark.kind == "line" and mark.series}
    if tones:
        keys = [Line2D([], [], color=colour) for colour in tones.values()]
        names = [plain(clipped(name)) for name in tones]
        axes.legend(keys, names, fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _axis(axis: Any, own: Axis, scale: Scale) -> None:
    """Label, range and ticks, as on the page."""
    across = axis is axis.axes.xaxis
    if own.log:
        (axis.axes.set_xscale if across else axis.axes.set_yscale)("log")
        axis.set_minor_formatter(NullFormatter())
    (axis.axes.set_xlim if across else axis.axes.set_ylim)(scale.low, scale.high)
    found = ticks(own, scale)
    axis.set_ticks([tick.value for tick in found], labels=[plain(clipped(tick.text)) for tick in found])
    axis.set_label_text(plain(own.label))


def _draw(axes: Any, mark: Mark) -> None:
    colour = TONES[mark.tone][0]
    style: dict[str, Any] = {"color": colour, "linestyle": DASHES if mark.dashed else "-", "linewidth": 1.1}
    if mark.kind == "line":
        axes.plot(mark.x, mark.y, **style)
    elif mark.kind == "step":
        axes.step(mark.x, mark.y, where="post", **style)
    elif mark.kind == "band":
        axes.fill_between(mark.x, mark.low, mark.high, color=colour, alpha=0.15, linewidth=0)
    elif mark.kind in ("bars", "whiskers"):
        low, high = bounds(mark)[: len(mark.x)], bounds(mark)[len(mark.x) :]
        lines = axes.hlines if mark.kind == "bars" else axes.vlines
        lines(mark.y if mark.kind == "bars" else mark.x, low, high, color=colour, linewidth=1.2)
    else:
        axes.scatter(mark.x, mark.y, s=12, color=colour if mark.kind == "dots" else "white", edgecolor=colour, zorder=3)
    for x, y, text in zip(mark.x, mark.y, mark.shown, strict=False):
        axes.annotate(plain(clipped(text)), (x, y), xytext=(4, 3), textcoords="offset points", fontsize=7, color=colour)
