"""The pictures of a comparison: intervals, learning curves, calibration, costs."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fieldctr.analysis.comparison.sentences import percent
from fieldctr.analysis.report.chart import MUTED, REFERENCE, TONES, Axis, Chart, Mark, thinned
from fieldctr.analysis.report.members import Member, calibration
from fieldctr.analysis.report.words import called, lower

MOST_POINTS = 80  # of a curve
COLOURED = [tone for tone in TONES if tone not in (REFERENCE, MUTED)]
SPIKE = 0.05  # share of the highest values of a curve's axis that may lie outside of it
COSTS = {  # by the name of its file: label, and where an arm has it
    "seconds": ("seconds of the fit, median", ("seconds",)),
    "parameters": ("parameters", ()),
    "dense_parameters": ("dense parameters", ("parameters", "dense")),
    "flops": ("FLOP per sample", ("flops_per_sample",)),
}

Arms = Mapping[str, Sequence[Member]]


def tones(comparison: Mapping[str, Any]) -> dict[str, str]:
    """A colour for each arm: black for the reference, colours for the best, grey for the others."""
    metric = comparison["metrics"][0]
    others = [arm["name"] for arm in comparison["arms"] if arm["name"] != comparison["against"]]
    means = {arm["name"]: arm["metrics"][metric]["mean"] for arm in comparison["arms"]}
    ranked = sorted(others, key=lambda name: means[name], reverse=not lower(metric))
    coloured = dict(zip(ranked, [*COLOURED, *[MUTED] * len(ranked)], strict=False))
    return {comparison["against"]: REFERENCE} | coloured


def ordered(comparison: Mapping[str, Any], metric: str) -> list[Mapping[str, Any]]:
    """The differences by one metric, the best first."""
    rows = [row for row in comparison["differences"] if row["metric"] == metric]
    return sorted(rows, key=lambda row: row["difference"], reverse=not lower(metric))


def intervals(comparison: Mapping[str, Any], metric: str) -> Chart | None:
    """Every difference to the reference with its interval: filled where it is told apart from none."""
    rows, what = ordered(comparison, metric), called(metric)
    if not rows:
        return None
    marks = []
    for at, row in enumerate(rows):
        clear = row["low"] > 0 or row["high"] < 0
        good = clear and (row["difference"] < 0) == lower(metric)
        tone = "t0" if good else "t1" if clear else MUTED
        own: dict[str, Any] = {"tone": tone, "series": row["arm"], "names": [row["sentence"]]}
        marks.append(Mark("bars", [row["difference"]], [at], low=[row["low"]], high=[row["high"]], **own))
        marks.append(Mark("dots" if clear else "rings", [row["difference"]], [at], **own))
    side = f"{what} minus that of {rows[0]['against']}; {'lower' if lower(metric) else 'higher'} is better"
    return Chart(
        f"intervals_{metric}",
        f"{what}: difference, {percent(comparison['level'])} interval",
        Axis(side),
        Axis("", names=tuple(row["arm"] for row in rows)),
        tuple(marks),
        rule=0.0,
    )


def learning(arms: Arms, colours: Mapping[str, str]) -> list[Chart]:
    """What each fit did, step by step; a dot marks the evaluation whose weights it kept."""
    histories = {name: [(member, member.history()) for member in members] for name, members in arms.items()}
    found = []
    for key, label in (
        ("train_loss", "train loss"),
        ("valid/auc", "valid AUC"),
        ("valid/logloss", "valid LogLoss"),
    ):
        marks: list[Mark] = []
        for name in sorted(arms, key=lambda one: colours[one] != MUTED):  # colours over greys
            for member, history in histories[name]:
                marks += _curve(member, history, key, name, colours[name])
        if marks:
            axis = Axis(label, limits=_limits([y for mark in marks for y in mark.y], highest=key == "valid/auc"))
            chart = Chart(f"learning_{key.replace('/', '_')}", label, Axis("step"), axis, tuple(marks))
            found.append(chart)
    return found


def _curve(member: Member, history: Sequence[Mapping[str, Any]], key: str, name: str, tone: str) -> list[Mark]:
    rows = [record for record in history if record.get(key) is not None and math.isfinite(record[key])]
    if not rows:
        return []
    label = f"{name}, seed {member.seed}"
    chosen = [rows[i] for i in thinned(len(rows), MOST_POINTS)]
    own: dict[str, Any] = {"tone": tone, "series": name}
    marks = [Mark("line", [row["step"] for row in chosen], [row[key] for row in chosen], names=[label], **own)]
    best = [row for row in rows if row["step"] == member.result.get("best_step")]
    if best:
        text = f"{label}: best at step {best[0]['step']:,}, {best[0][key]:.4f}"
        marks.append(Mark("dots", [best[0]["step"]], [best[0][key]], names=[text], **own))
    return marks


def _limits(values: Sequence[float], *, highest: bool) -> tuple[float, float]:
    """What is worth seeing: the first evaluations of a fit can lie far from all that follows."""
    low, high = (float(q) for q in np.quantile(values, [SPIKE, 1.0] if highest else [0.0, 1 - SPIKE]))
    room = 0.08 * (high - low) or 0.01
    return low - room, high + room


def reliability(arms: Arms, colours: Mapping[str, str], split: str, outputs: Path) -> Chart | None:
    """Observed against predicted click rates: on the diagonal a model means what it says."""
    marks: list[Mark] = []
    for name in sorted(arms, key=lambda one: colours[one] != MUTED):
        found = calibration(arms[name], split, outputs)
        if found is None:
            continue
        points = (found.predicted.tolist(), found.observed.tolist())
        labels = [f"{name}: predicted {x:.4f}, observed {y:.4f}" for x, y in zip(*points, strict=True)]
        marks.append(Mark("line", *points, colours[name], names=[name], series=name))
        marks.append(Mark("dots", *points, colours[name], names=labels, series=name))
    if not marks:
        return None
    title = f"Calibration on {split}"
    return Chart(
        "calibration", title, Axis("predicted click rate"), Axis("observed click rate"), tuple(marks), diagonal=True
    )


def costs(comparison: Mapping[str, Any], colours: Mapping[str, str]) -> list[Chart]:
    """The first metric against what it costs, with the arms that no other beats at a lower cost."""
    return [chart for name in COSTS if (chart := _cost(comparison, colours, name))]


def _cost(comparison: Mapping[str, Any], colours: Mapping[str, str], name: str) -> Chart | None:
    label, metric = COSTS[name][0], comparison["metrics"][0]
    what = called(metric)
    arms = [(arm, cost) for arm in comparison["arms"] if (cost := cost_of(arm, name))]
    if len({cost for _, cost in arms}) < 2:
        return None
    points = [(cost, arm["metrics"][metric]["mean"]) for arm, cost in arms]
    front = pareto(points, smaller=lower(metric))
    ranked = sorted(points[i] for i in front)
    line = Mark("step", [x for x, _ in ranked], [y for _, y in ranked], MUTED, names=["Pareto front"], dashed=True)
    marks = [line]
    for i, (arm, cost) in enumerate(arms):
        mean, sd = points[i][1], arm["metrics"][metric]["sd"]
        own: dict[str, Any] = {"tone": colours[arm["name"]], "series": arm["name"]}
        text = f"{arm['name']}: {what} {mean:.4f}, {cost:,.6g} {label}"
        if sd is not None:
            marks.append(Mark("whiskers", [cost], [mean], low=[mean - sd], high=[mean + sd], **own))
        marks.append(Mark("dots", [cost], [mean], names=[text], shown=[arm["name"] if i in front else ""], **own))
    axis = Axis(f"{comparison['split']} {what}")
    return Chart(f"cost_{name}", f"{what} against {label}", Axis(label, log=True), axis, tuple(marks))


def cost_of(arm: Mapping[str, Any], name: str) -> float | None:
    """A cost of an arm, None or 0 where it has none; parameters are all of them."""
    if name == "parameters":
        return sum(count or 0 for count in (arm["parameters"] or {}).values())
    value: Any = arm
    for key in COSTS[name][1]:
        value = (value or {}).get(key)
    return value


def pareto(points: Sequence[tuple[float, float]], *, smaller: bool) -> set[int]:
    """Indices of the points that no other beats in one of cost and value and equals in the other."""
    sign = -1 if smaller else 1
    best, found = -math.inf, set()
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -sign * points[i][1])):
        if sign * points[i][1] > best:
            best = sign * points[i][1]
            found.add(i)
    return found
