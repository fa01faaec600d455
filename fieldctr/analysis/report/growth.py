"""Where runs of one model differ in size: the law of its loss with its band, beside the verdict on it."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np

from fieldctr.analysis.report.chart import REFERENCE, Axis, Chart, Mark
from fieldctr.analysis.report.charts import COLOURED
from fieldctr.analysis.report.members import Member
from fieldctr.analysis.scaling.laws import loss_law, study, varied
from fieldctr.analysis.scaling.report import Report, curve_rows
from fieldctr.analysis.scaling.shuffled import shuffled, supported_by_chance
from fieldctr.analysis.scaling.trials import RECORDED, cells_of, load_trials

FEWEST_SIZES = 5  # of one model: a law with an intercept has three parameters, and one size is held out
RESAMPLES, SEED, CURVE = 200, 1, 40


class Growth(NamedTuple):
    """A picture of growth, and what it says."""

    chart: Chart
    verdict: str


def growths(members: Sequence[Member], split: str) -> list[Growth]:
    """Of each model with enough sizes, by width or by rows."""
    models: dict[str, list[Member]] = {}
    for member in members:
        if all(key in member.result for key in RECORDED):
            models.setdefault(member.result["model"], []).append(member)
    found = []
    for name, own in models.items():
        sizes = {(one.result["num_parameters"]["dense"], one.result["num_rows"]["train"]) for one in own}
        if len(sizes) >= FEWEST_SIZES:
            found += _growth(name, own, split, f"growth_{len(found) + 1}")
    return found


def _growth(name: str, members: Sequence[Member], split: str, file: str) -> list[Growth]:
    trials = load_trials([member.folder for member in members], scaled=name, baseline=None, split=split)
    loss = np.array([trial.result[split]["logloss"] for trial in trials.scaled])
    cells, sizes = cells_of(trials.scaled, loss, "dense")
    axes = varied(cells.sizes)
    if not axes or len(cells.mean) < FEWEST_SIZES:
        return []
    law = study(loss_law(axes), cells, better="lower", unit="LogLoss", hold_out=1, resamples=RESAMPLES, seed=SEED)
    chance = supported_by_chance(law, shuffled(trials.scaled, loss, "dense", seed=SEED), better="lower", seed=SEED)
    report = Report("loss_law", f"{split} LogLoss", law, sizes, loss, chance)
    labels = ("dense parameters N", "train rows D")
    marks = [
        mark for tone, rows in zip(cycle(COLOURED), _levels(report), strict=False) for mark in _law(tone, rows, report)
    ]
    axis, error = report.axis, 1.96 * cells.noise / np.sqrt(cells.seeds)
    held = set(law.outer.tolist())
    at = cells.sizes[:, axis]
    low, high = (cells.mean - error).tolist(), (cells.mean + error).tolist()
    marks.append(Mark("whiskers", at.tolist(), cells.mean.tolist(), REFERENCE, low, high))
    for kind, rows in (("dots", [i for i in range(len(at)) if i not in held]), ("rings", sorted(held))):
        names = [f"N {cells.sizes[i, 0]:,.0f}, D {cells.sizes[i, 1]:,.0f}: {cells.mean[i]:.5f}" for i in rows]
        marks.append(Mark(kind, at[rows].tolist(), cells.mean[rows].tolist(), REFERENCE, names=names))
    title = f"{name}: {report.metric}, {law.form.name}"
    chart = Chart(file, title, Axis(labels[axis], log=True), Axis(report.metric), tuple(marks))
    return [Growth(chart, f"{law.verdict}; {report.by_chance}")]


def _levels(report: Report) -> list[list[dict[str, Any]]]:
    """The law's curve for each value of the axis that is not shown."""
    other, found = ("D", "N")[report.axis], {}
    for row in curve_rows(report):
        found.setdefault(row[other], []).append(row)
    return list(found.values())


def _law(tone: str, rows: Sequence[Mapping[str, Any]], report: Report) -> list[Mark]:
    thin = [rows[i] for i in np.linspace(0, len(rows) - 1, CURVE).round().astype(int)]
    x = [row[("N", "D")[report.axis]] for row in thin]
    fit = [row["fit"] for row in thin]
    band = Mark("band", x, fit, tone, [row["low"] for row in thin], [row["high"] for row in thin], names=["95 % band"])
    return [band, Mark("line", x, fit, tone, names=["law"])]
