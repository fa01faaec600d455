"""`fieldctr scaling runs=GLOB ...`: what finished runs say about a scaling law, and whether they say anything."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from fieldctr.analysis.scaling.laws import GAIN, loss_law, study, varied
from fieldctr.analysis.scaling.report import UNITS, Report, Rows, as_csv, facts_of, files_of, markdown
from fieldctr.analysis.scaling.shuffled import shuffled, supported_by_chance
from fieldctr.analysis.scaling.trials import Size, Trials, baseline_auc, cells_of, load_trials
from fieldctr.config import Between, Positive, TrackerConfig, parse
from fieldctr.disk import write_json, write_text
from fieldctr.errors import UserError
from fieldctr.run_folders import find_runs
from fieldctr.tracking import Tracker

POINT = 100  # AUC is reported in points


@dataclass(frozen=True)
class ScalingConfig:
    """The root of `fieldctr scaling`."""

    data_root: str
    outputs: str
    runs: str | list[str]  # globs of run folders or of sweeps
    scaled: str | None  # the model; null: the one besides the baseline
    baseline: str | float | None  # a model among the runs, or an AUC; null leaves the law of gains out
    size: Size  # what N is
    split: Literal["valid", "test"]
    hold_out: Positive  # sizes, the largest ones
    resamples: Annotated[int, Between(100)]
    seed: Annotated[int, Between(0, 2**32 - 1)]
    tracker: TrackerConfig


def main(node: dict[str, Any], folder: Path) -> None:
    """Fit, judge, and leave pictures, tables and a page in `folder`; print the verdicts."""
    config = parse(ScalingConfig, node, "")
    finished, unfinished = find_runs([config.runs] if isinstance(config.runs, str) else config.runs)
    if not finished:
        raise UserError(f"runs={config.runs}: none of its {len(unfinished)} runs has finished")
    trials = load_trials(finished, scaled=config.scaled, baseline=config.baseline, split=config.split)
    trials.notes.extend(f"{run} has not finished and was left out" for run in unfinished)
    reports, baseline = reported(trials, config)
    name = trials.scaled[0]
    title = f"Scaling of {name.model} on {name.result['dataset']}"
    facts = facts_of(
        *(trials, baseline),
        **{"size": config.size, "split": config.split, "hold_out": config.hold_out, "resamples": config.resamples},
    )
    pictures = draw(reports, trials, config, folder, title)
    tables = files_of(reports, trials, config.split)
    for table, rows in tables.items():
        write_text(folder / f"{table}.csv", as_csv(rows))
    write_text(folder / "scaling.md", markdown(title, facts, reports, trials.notes))
    mirror(Tracker(config.tracker, folder, folder.name, node), reports, tables, pictures)
    write_json(folder / "scaling.json", {"title": title, **facts, "notes": trials.notes, **tables})
    print(
        "\n".join([title, *(f"{one.metric}: {one.study.verdict}; {one.by_chance}" for one in reports), *trials.notes])
    )
    print(f"{folder}/scaling.md")


def reported(trials: Trials, config: ScalingConfig) -> tuple[list[Report], str]:
    """The law of gains where there is a baseline, that of the loss, and the baseline in words."""
    loss = np.array([trial.result[config.split]["logloss"] for trial in trials.scaled])
    cells, sizes = cells_of(trials.scaled, loss, config.size)
    axes = varied(cells.sizes)
    if not axes:
        raise UserError("all runs have one size: a scaling study needs several. What N is: size=dense|total|flops")
    how = {"hold_out": config.hold_out, "resamples": config.resamples, "seed": config.seed}
    found = study(loss_law(axes), cells, better="lower", unit="LogLoss", **how)
    tables = shuffled(trials.scaled, loss, config.size, seed=config.seed)
    chance = supported_by_chance(found, tables, better="lower", seed=config.seed)
    losses = Report("loss_law", f"{config.split} LogLoss", found, sizes, loss, chance)
    if config.baseline is None:
        return [losses], "none: give baseline=MODEL or baseline=AUC for the law of AUC gains"
    if 0 not in axes:
        return [losses], f"{config.baseline}; not used, as N does not vary"
    auc, error = baseline_auc(trials, config.baseline, config.split)
    rows = max(trial.train_rows for trial in trials.scaled)
    whole = [trial for trial in trials.scaled if trial.train_rows == rows]
    gains = np.array([POINT * (trial.result[config.split]["auc"] - auc) for trial in whole])
    cells, sizes = cells_of(whole, gains, config.size, shift=POINT * error)
    found = study(GAIN, cells, better="higher", unit="points", **how)
    tables = shuffled(whole, gains, config.size, seed=config.seed, shift=POINT * error)
    chance = supported_by_chance(found, tables, better="higher", seed=config.seed)
    gain = Report("auc_law", f"{config.split} AUC over {config.baseline}, points", found, sizes, gains, chance)
    return [gain, losses], f"{config.baseline}, {config.split} AUC {auc:.4f}, standard error {error:.4f}"


def draw(reports: Sequence[Report], trials: Trials, config: ScalingConfig, folder: Path, title: str) -> dict[str, Path]:
    """PNG and SVG of each law and of the costs; gives the PNGs by name."""
    from fieldctr.analysis.plots import save
    from fieldctr.analysis.scaling.plots import cost_figure, law_figure

    folder.mkdir(parents=True, exist_ok=True)
    label = UNITS[config.size]
    figures = {one.name: law_figure(one, title=title, size_label=label) for one in reports}
    sizes = [trial.size(config.size) for trial in trials.scaled]
    figures["cost"] = cost_figure(trials.scaled, split=config.split, size_label=label, sizes=sizes, title=title)
    return {name: save(figure, folder / name) for name, figure in figures.items()}


def mirror(tracker: Tracker, reports: Sequence[Report], tables: dict[str, Rows], pictures: dict[str, Path]) -> None:
    """The same tables and pictures in the tracker."""
    summary = {f"{one.name}/supported": float(one.study.supported) for one in reports}
    for one in reports:
        summary |= {f"{one.name}/{name}": found.value for name, found in one.study.parameters.items()}
    with tracker:
        for name, rows in tables.items():
            tracker.table(name, rows)
        tracker.finish(summary, pictures)
