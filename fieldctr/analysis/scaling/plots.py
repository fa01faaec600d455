"""The pictures of a scaling study: a law with its band beside its null models, and what each run cost."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from fieldctr.analysis.plots import SETTINGS
from fieldctr.analysis.scaling.report import Report, Rows, curve_rows
from fieldctr.analysis.scaling.trials import Trial

STYLE: Any = SETTINGS | {"axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True}
NULLS = (("0.45", (0, (1, 1.5))), ("0.45", (0, (5, 2))))  # colour and dashes of the constant and the line
COLOURS = mpl.colormaps["viridis"]
EXPONENTS = ("b", "alpha", "beta")
BEYOND = (0, (4, 1.5))  # dashes of a law where it was not fitted
LAW = "#1f5fa8"
HELD = "#c8401f"
CROWDED = 300  # a range, as a factor, for which ticks at 1, 2 and 5 would touch
SUFFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def law_figure(report: Report, *, title: str, size_label: str) -> Figure:
    """Runs as dots, means with their 95 % intervals, the law with its band, null models, and the held-out sizes."""
    study, axis = report.study, report.axis
    levels = np.unique(study.cells.sizes[:, 1 - axis])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.4, 4.2), layout="constrained")
        axes = figure.add_subplot()
        for level, colour in zip(levels, _colours(len(levels)), strict=True):
            _points(axes, report, level, colour)
            _curves(axes, report, level, colour)
        _legend(axes, report, levels)
        _logarithmic(axes.xaxis)
        axes.set_xlabel((f"{size_label} N", "train rows D")[axis])
        axes.set_ylabel(report.metric)
        axes.grid(color="0.92", linewidth=0.6)
        axes.set_title(f"{title}\n{_finding(report)}", fontsize=9, loc="left")
        _limit(axes, report)
    return figure


def cost_figure(trials: Sequence[Trial], *, split: str, size_label: str, sizes: Sequence[float], title: str) -> Figure:
    """AUC against the FLOP, the seconds and the samples of each fit; colour is the size."""
    costs = [trial.costs() for trial in trials]
    auc = [trial.result[split]["auc"] for trial in trials]
    labels = {
        "flop": "FLOP of the fit's matrix products",
        "seconds": "seconds of the fit",
        "samples": "samples, with repetitions",
    }
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.2), layout="constrained")
        panels = figure.subplots(1, len(labels), sharey=True)
        norm = mpl.colors.LogNorm(min(sizes), max(sizes) * (1 + 1e-9))
        for axes, (name, label) in zip(panels, labels.items(), strict=True):
            dots = axes.scatter([one[name] for one in costs], auc, c=sizes, cmap=COLOURS, norm=norm, s=16, alpha=0.85)
            _logarithmic(axes.xaxis)
            axes.set_xlabel(label)
            axes.grid(color="0.92", linewidth=0.6)
        panels[0].set_ylabel(f"{split} AUC")
        bar = figure.colorbar(dots, ax=panels, label=size_label, pad=0.01)
        bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        bar.ax.yaxis.set_major_formatter(FuncFormatter(_short))
        bar.ax.yaxis.set_minor_formatter(NullFormatter())
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
    return figure


def _colours(count: int) -> list[Any]:
    return [LAW] if count == 1 else [COLOURS(x) for x in np.linspace(0.0, 0.85, count)]


def _points(axes: Any, report: Report, level: float, colour: Any) -> None:
    cells, axis = report.study.cells, report.axis
    own = report.sizes[:, 1 - axis] == level
    axes.scatter(report.sizes[own, axis], report.values[own], s=7, color=colour, alpha=0.35, linewidth=0, zorder=2)
    error = 1.96 * cells.noise / np.sqrt(cells.seeds)
    for indices, fill, edge in ((report.study.inner, colour, colour), (report.study.outer, "white", HELD)):
        chosen = [i for i in indices if cells.sizes[i, 1 - axis] == level]
        axes.errorbar(
            *(cells.sizes[chosen, axis], cells.mean[chosen], error[chosen]),
            **{"fmt": "o", "ms": 5, "mfc": fill, "mec": edge, "ecolor": edge, "mew": 1.2, "elinewidth": 1, "zorder": 4},
        )


def _curves(axes: Any, report: Report, level: float, colour: Any) -> None:
    rows = [row for row in curve_rows(report) if row[("D", "N")[report.axis]] == level]
    if not rows:
        return
    x = _column(rows, ("N", "D")[report.axis])
    axes.fill_between(x, _column(rows, "low"), _column(rows, "high"), color=colour, alpha=0.14, linewidth=0, zorder=1)
    fitted = report.study.cells.sizes[report.study.inner][:, report.axis].max()
    for part, dashes in ((x <= fitted, "-"), (x >= fitted, BEYOND)):
        axes.plot(x[part], _column(rows, "fit")[part], color=colour, linestyle=dashes, linewidth=1.6, zorder=3)
    if len(np.unique(report.study.cells.sizes[:, 1 - report.axis])) == 1:  # several would hide the data
        for fit, (grey, dashes) in zip(report.study.fits[1:], NULLS, strict=True):
            axes.plot(x, _column(rows, fit.form.name), color=grey, linestyle=dashes, linewidth=1, zorder=1.5)


def _column(rows: Rows, name: str) -> np.ndarray:
    return np.array([row[name] for row in rows])


def _legend(axes: Any, report: Report, levels: np.ndarray) -> None:
    line, study, one = Line2D, report.study, len(levels) == 1
    colour = LAW if one else "0.25"
    marks = [
        (line([], [], marker="o", ls="", ms=2.6, color=colour, alpha=0.5), "one run"),
        (line([], [], marker="o", ls="", ms=5, color=colour), "mean of the seeds, 95 %"),
        (line([], [], marker="o", ls="", ms=5, mfc="white", mec=HELD, mew=1.2), "held out"),
    ]
    if study.fits:
        band = Patch(color=colour, alpha=0.14, linewidth=0)
        marks.append(((band, line([], [], color=colour, linewidth=1.6)), "law, 95 % band"))
        marks.append((line([], [], color=colour, linewidth=1.6, linestyle=BEYOND), "beyond what was fitted"))
    if study.fits and one:
        for fit, (grey, dashes) in zip(study.fits[1:], NULLS, strict=True):
            marks.append((line([], [], color=grey, linestyle=dashes, linewidth=1), fit.form.name))
    if not one:
        for level, own in zip(levels, _colours(len(levels)), strict=True):
            marks.append((line([], [], color=own, linewidth=1.6), f"{('D', 'N')[report.axis]} = {_short(level)}"))
    handles, labels = zip(*marks, strict=True)
    beside = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}  # no corner is free of error bars for sure
    axes.legend(handles, labels, fontsize=7, frameon=False, handlelength=2.6, **beside)


def _finding(report: Report) -> str:
    """The formula, its exponents and the verdict's first words."""
    study = report.study
    formula = study.form.name.replace("alpha", r"\alpha").replace("beta", r"\beta")
    found = [
        f"${symbol if symbol == 'b' else chr(92) + symbol}$ = {one.value:.2f} ({one.low:.2f} to {one.high:.2f})"
        for symbol, one in study.parameters.items()
        if symbol in EXPONENTS
    ]
    return "   ".join([f"${formula}$", *found, study.verdict.partition(":")[0]])


def _limit(axes: Any, report: Report) -> None:
    """Let the runs decide how much is seen: a band that opens far beyond them would flatten all else."""
    low, high = report.values.min(), report.values.max()
    room = 0.35 * max(high - low, 1e-6)
    axes.set_ylim(low - room, high + room)


def _logarithmic(axis: Any) -> None:
    axis.axes.set_xscale("log")
    low, high = axis.get_data_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < CROWDED * low else (1,)))
    axis.set_major_formatter(FuncFormatter(_short))
    axis.set_minor_formatter(NullFormatter())


def _short(value: float, _: object = None) -> str:
    for unit, suffix in SUFFIXES:
        if value >= unit:
            return f"{value / unit:.3g}{suffix}"
    return f"{value:.3g}"
