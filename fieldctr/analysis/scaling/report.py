"""A scaling study as tables and as a page to read: every number of the pictures is here too."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fieldctr.analysis.scaling.laws import INTERVAL, Interval, Study, varied
from fieldctr.analysis.scaling.shuffled import PERMUTATIONS
from fieldctr.analysis.scaling.trials import REPEATS, Size, Trials
from fieldctr.provenance import short

POINTS = 80  # of a curve
MARGIN = 1.3  # how far a curve goes beyond the sizes, as a factor
UNITS: dict[Size, str] = {
    "dense": "dense parameters",
    "embedding": "embedding parameters",
    "total": "parameters",
    "flops": "FLOP per sample",
}

Rows = list[dict[str, Any]]


class Report(NamedTuple):
    """One law on one metric, with the runs behind it."""

    name: str  # of its files
    metric: str  # what the vertical axis shows
    study: Study
    sizes: np.ndarray  # (r, 2) of each run
    values: np.ndarray  # (r,)
    shuffled: int  # of PERMUTATIONS in which the sizes are dealt out anew, those that support the law too

    @property
    def by_chance(self) -> str:
        """How often the verdict would be "supported" where there is nothing to find."""
        return f"on shuffled sizes a law is supported in {self.shuffled} of {PERMUTATIONS} permutations"

    @property
    def axis(self) -> int:
        """The horizontal one, of AXES: N unless only D varies."""
        found = varied(self.study.cells.sizes)
        return found[0] if found else 0


def run_rows(trials: Trials, split: str) -> Rows:
    """One row per run: what it was, what it cost, how good it is."""
    rows = []
    for trial in [*trials.baseline, *trials.scaled]:
        result = trial.result
        row = {"run": str(trial.folder), "model": trial.model, "seed": result["seed"]}
        row |= {key: trial.settings.get(key) for key in trials.varied}
        row |= {f"{kind}_parameters": count for kind, count in result["num_parameters"].items()}
        row |= {"fields": result["num_fields"], "train_rows": trial.train_rows}
        row |= {"flop_per_sample": result["flops_per_sample"]}
        row |= {f"fit_{name}": value for name, value in trial.costs().items()}
        rows.append(row | {name: result[split][name] for name in ("auc", "logloss")})
    return rows


def size_rows(report: Report) -> Rows:
    """One row per cell: its sizes, its mean, and what the law says of it."""
    study, cells = report.study, report.study.cells
    rows = []
    for i, ((n, d), mean, seeds) in enumerate(zip(cells.sizes, cells.mean, cells.seeds, strict=True)):
        row = {"law": report.name, "N": round(n), "D": round(d), "seeds": int(seeds), "mean": float(mean)}
        row |= {"sd_of_a_run": cells.noise, "held_out": bool(i in study.outer)}
        row |= {fit.form.name: float(fit.at(cells.sizes[i : i + 1])[0, 0]) for fit in study.fits}
        rows.append(row)
    return rows


def curve_rows(report: Report) -> Rows:
    """The law with its band, and the null models, along the horizontal axis, for each value of the other one."""
    study, axis = report.study, report.axis
    if not study.fits:
        return []
    sizes = study.cells.sizes
    line = np.geomspace(sizes[:, axis].min() / MARGIN, sizes[:, axis].max() * MARGIN, POINTS)
    rows: Rows = []
    for level in np.unique(sizes[:, 1 - axis]):
        grid = np.full((POINTS, 2), level)
        grid[:, axis] = line
        law, *nulls = (fit.at(grid) for fit in study.fits)
        low, high = np.quantile(law[1:], INTERVAL, axis=0)
        for i, (n, d) in enumerate(grid.tolist()):
            shown = {"N": n, "D": d, "fit": law[0, i], "low": low[i], "high": high[i]}
            shown |= {fit.form.name: null[0, i] for fit, null in zip(study.fits[1:], nulls, strict=True)}
            rows.append({"law": report.name} | {key: float(value) for key, value in shown.items()})
    return rows


def parameter_rows(report: Report) -> Rows:
    """One row per parameter: its estimate and interval, from the sizes that were not held out and from all."""
    rows = []
    for name, inner in report.study.parameters.items():
        every = report.study.refitted[name]
        rows.append(
            {"law": report.name, "parameter": name}
            | {"value": inner.value, "low": inner.low, "high": inner.high}
            | {"of_all": every.value, "of_all_low": every.low, "of_all_high": every.high}
        )
    return rows


def held_out_rows(report: Report) -> Rows:
    """One row per held-out cell and form: predicted, observed, error."""
    study = report.study
    rows = []
    for tested in study.held_out:
        for i, predicted, error in zip(study.outer, tested.predicted, tested.errors, strict=True):
            n, d = study.cells.sizes[i]
            row = {"law": report.name, "form": tested.form, "N": round(n), "D": round(d)}
            row |= {"predicted": predicted.value, "low": predicted.low, "high": predicted.high}
            rows.append(row | {"observed": float(study.cells.mean[i]), "error": error})
    return rows


def verdict_rows(reports: Sequence[Report]) -> Rows:
    return [
        {"law": report.name, "form": report.study.form.name, "supported": report.study.supported}
        | {"verdict": report.study.verdict, "shuffled_supported": report.shuffled, "permutations": PERMUTATIONS}
        for report in reports
    ]


def markdown(title: str, facts: Mapping[str, str], reports: Sequence[Report], notes: Sequence[str]) -> str:
    """The page: verdicts first, then what they rest on."""
    parts = [f"# {title}", *(f"**{one.metric}**: {one.study.verdict}; {one.by_chance}." for one in reports)]
    parts.append("\n".join(f"- {name}: {value}" for name, value in facts.items()))
    for report in reports:
        parts += _section(report)
    parts += ["## What a run cost", "![cost](cost.png)", "All runs are in runs.csv."]
    if notes:
        parts += ["## Notes", "\n".join(f"- {note}" for note in notes)]
    return "\n\n".join(parts) + "\n"


def _section(report: Report) -> list[str]:
    study = report.study
    parts = [f"## {report.metric}: {study.form.name}", f"![{report.name}]({report.name}.png)"]
    sizes = [
        [f"{row['N']:,}", f"{row['D']:,}", row["seeds"], f"{row['mean']:.5f}", "held out" if row["held_out"] else ""]
        for row in size_rows(report)
    ]
    parts.append(table(["N", "D", "runs", "mean", ""], sizes))
    if not study.fits:
        return parts
    parameters = [[name, _spelled(inner), _spelled(study.refitted[name])] for name, inner in study.parameters.items()]
    assert study.form.exponents is not None
    low, high = study.form.exponents
    parts.append(
        f"Exponents are sought from {low:g} to {high:g}: an interval that ends there is not known on that side."
    )
    parts.append(table(["parameter", "without the held-out sizes (95 %)", "with all sizes (95 %)"], parameters))
    held = []
    for row in held_out_rows(report):
        predicted = _spelled(Interval(row["predicted"], row["low"], row["high"]))
        held.append([row["form"], f"{row['N']:,}", f"{row['D']:,}", predicted])
        held[-1] += [f"{row['observed']:.5f}", f"{row['error']:+.5f}"]
    return [*parts, table(["held out: form", "N", "D", "predicted (95 %)", "observed", "error"], held)]


def _spelled(interval: Interval) -> str:
    return f"{interval.value:.5g} ({interval.low:.5g} to {interval.high:.5g})"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def as_csv(rows: Rows) -> str:
    """Rows with the columns of all of them, in order of appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def facts_of(trials: Trials, baseline: str, *, size: Size, split: str, hold_out: int, resamples: int) -> dict[str, str]:
    """What a reader must know to judge the numbers."""
    results = [trial.result for trial in trials.scaled]
    changed = "; ".join(f"{key} = {', '.join(map(str, values))}" for key, values in trials.varied.items())
    commits = sorted({short(result["commit"]) for result in results})
    digests = sorted({result["data_digest"] for result in results})
    return {
        "varied": changed or "nothing",
        "N": f"{UNITS[size]}; D: train rows",
        "runs": f"{len(results)}, of {len({result['seed'] for result in results})} seeds; metrics of {split}",
        "baseline": baseline,
        "held out": f"{hold_out} of the sizes, the largest by N D; all fits, bands and verdicts leave it out",
        "intervals": f"95 %, {resamples} wild resamples over sizes, with the noise of seeds as their floor",
        "cells": f"runs that differ in nothing but {', '.join(REPEATS)}",
        "machine": ", ".join(sorted({result["runtime"] for result in results})),
        "tables": ", ".join(digests),
        "commits": ", ".join(commits),
    }


def files_of(reports: Sequence[Report], trials: Trials, split: str) -> dict[str, Rows]:
    """The tables by the name of their CSV file."""
    found = {
        "runs": run_rows(trials, split),
        "sizes": [row for one in reports for row in size_rows(one)],
        "parameters": [row for one in reports for row in parameter_rows(one)],
        "held_out": [row for one in reports for row in held_out_rows(one)],
        "curves": [row for one in reports for row in curve_rows(one)],
        "verdicts": verdict_rows(reports),
    }
    return {name: rows for name, rows in found.items() if rows}
