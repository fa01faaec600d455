"""Finished runs as the points of a scaling study: their sizes, what they cost and how good they are."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from fieldctr.analysis.scaling.laws import Cells, grouped
from fieldctr.artifacts import canonical
from fieldctr.errors import UserError, nearest
from fieldctr.runs import lasting, load_config, load_result

Size = Literal["dense", "embedding", "total", "flops"]
RECORDED = ("num_rows", "num_fields", "samples", "flops_per_sample")  # what earlier versions did not record
REPEATS = ("seed", "dataset.fraction_seed")  # keys in which runs of one cell may differ
TRAINING = 3  # FLOP of a training step over those of its forward pass: backward makes two products of each


class Trial(NamedTuple):
    """One finished run."""

    folder: Path
    settings: dict[str, Any]  # what decided its numbers, by dotted key, without REPEATS
    result: dict[str, Any]

    @property
    def model(self) -> str:
        return self.result["model"]

    @property
    def train_rows(self) -> int:
        return self.result["num_rows"]["train"]

    def size(self, kind: Size) -> int:
        """Parameters, or FLOP per sample."""
        return self.result["flops_per_sample"] if kind == "flops" else self.result["num_parameters"][kind]

    def costs(self) -> dict[str, float]:
        """Of the fit: FLOP of its matrix products, its seconds, its samples with repetitions."""
        samples = self.result["samples"]
        flop = TRAINING * self.result["flops_per_sample"] * samples
        return {"flop": flop, "seconds": self.result["fit_seconds"]["train"], "samples": samples}


class Trials(NamedTuple):
    """The runs of the model that was scaled, and those of the baseline."""

    scaled: list[Trial]
    baseline: list[Trial]
    varied: dict[str, list[Any]]  # keys in which the scaled runs differ, with their values
    notes: list[str]  # what was left out and why


def load_trials(folders: Sequence[Path], *, scaled: str | None, baseline: str | float | None, split: str) -> Trials:
    """Read the runs and sort them out. UserError when they cannot be compared."""
    runs = [_load(folder) for folder in folders]
    every, notes = _once([run for run in runs if split in run.result])
    unread = [run.folder for run in runs if split not in run.result]
    notes += [f"{folder}, a trial of a search, has not read {split}: left out" for folder in unread]
    if not every:
        raise UserError(f"the runs are trials of a search and have not read {split}: give split=valid, or final runs")
    names = sorted({trial.model for trial in every})
    if isinstance(baseline, str) and baseline not in names:
        raise UserError(
            f"baseline={baseline}: no run of it. {nearest(baseline, names)}The runs have {', '.join(names)}"
        )
    others = [name for name in names if name != baseline]
    if scaled is None and len(others) != 1:
        found = ", ".join(others) or "only the baseline"
        raise UserError(f"scaled is not set, and the runs have {found}: give scaled=MODEL")
    chosen = scaled or others[0]
    if chosen not in names:
        raise UserError(f"scaled={chosen}: no run of it. {nearest(chosen, names)}The runs have {', '.join(names)}")
    points = [trial for trial in every if trial.model == chosen]
    _refuse_mixtures(every)
    settings = [trial.settings for trial in points]
    values = {key: [own.get(key) for own in settings] for key in sorted({key for own in settings for key in own})}
    varied = {key: _distinct(column) for key, column in values.items() if len(_distinct(column)) > 1}
    return Trials(points, [trial for trial in every if trial.model == baseline], varied, notes)


def cells_of(
    trials: Sequence[Trial], values: np.ndarray, size: Size, *, shift: float = 0.0
) -> tuple[Cells, np.ndarray]:
    """Runs that differ in nothing but their seed as one cell each, whose N and D, the means of its runs', come back
    for every run as (r, 2)."""
    names = [canonical(trial.settings) for trial in trials]
    cell = np.unique(names, return_inverse=True)[1]
    sizes = np.array([[trial.size(size), trial.train_rows] for trial in trials], float)
    counts = np.bincount(cell)
    means = np.stack([np.bincount(cell, column) / counts for column in sizes.T], axis=1)
    return grouped(means[cell], values, cell, shift=shift), means[cell]


def baseline_auc(trials: Trials, baseline: str | float, split: str) -> tuple[float, float]:
    """The AUC to gain over, and its standard error. Only runs on all the train rows count."""
    if not isinstance(baseline, str):
        return float(baseline), 0.0
    rows = max(trial.train_rows for trial in trials.scaled)
    whole = [trial for trial in trials.baseline if trial.train_rows == rows]
    if not whole:
        raise UserError(f"baseline={baseline}: no run of it has the {rows:,} train rows of the scaled model's largest")
    sizes = sorted({trial.size("total") for trial in whole})
    if len(sizes) > 1:
        found = ", ".join(f"{size:,}" for size in sizes)
        raise UserError(f"baseline={baseline}: its runs have {found} parameters; a baseline has one size. Narrow runs=")
    by_seed: dict[int, list[float]] = {}
    for trial in whole:
        by_seed.setdefault(trial.result["seed"], []).append(trial.result[split]["auc"])
    means = [statistics.fmean(one) for one in by_seed.values()]
    error = statistics.stdev(means) / len(means) ** 0.5 if len(means) > 1 else 0.0
    return statistics.fmean(means), error


def _load(folder: Path) -> Trial:
    result = load_result(folder)
    for key in RECORDED:
        if key not in result:
            raise UserError(f"{folder}: result.json has no {key}, so an earlier version made it. Run it again")
    settings = lasting(load_config(folder))
    return Trial(folder, {key: value for key, value in settings.items() if key not in REPEATS}, result)


def _once(trials: Sequence[Trial]) -> tuple[list[Trial], list[str]]:
    """The first of runs with one configuration: a repetition is no new evidence."""
    first: dict[str, Trial] = {}
    notes = []
    for trial in trials:
        same = first.setdefault(trial.result["config_digest"], trial)
        if same is not trial:
            notes.append(f"{trial.folder} repeats {same.folder} and was left out")
    return list(first.values()), notes


def _refuse_mixtures(trials: Sequence[Trial]) -> None:
    """UserError for runs whose metrics are of different tables."""
    for what, values in (
        ("datasets", {trial.result["dataset"] for trial in trials}),
        ("numbers of test rows", {trial.result["num_rows"]["test"] for trial in trials}),
    ):
        if len(values) > 1:
            raise UserError(f"the runs have {len(values)} {what} ({', '.join(map(str, sorted(values)))}): narrow runs=")


def _distinct(values: Sequence[Any]) -> list[Any]:
    return list({canonical(value): value for value in values}.values())
