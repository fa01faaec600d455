"""`fieldctr compare runs=GLOB by=model against=fat`: which arm is better, by how much, and how sure that is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fieldctr.analysis.comparison import tables
from fieldctr.analysis.comparison.arms import Bench, benches, load_runs
from fieldctr.analysis.comparison.comparison import Terms, compared
from fieldctr.analysis.comparison.slices import sliced
from fieldctr.commands.compared_rows import CompareConfig, by_frequencies, ground_of, scores_of, slicing
from fieldctr.config import listed, parse, yaml
from fieldctr.disk import write_text
from fieldctr.errors import UserError
from fieldctr.run_folders import find_runs


def main(node: dict[str, Any]) -> None:
    """Print what can be said, and where the tables are."""
    found = compare(node)["comparisons"]
    print("\n\n".join(tables.terminal(one) for one in found))
    print(f"{node['output']}/comparison.md")


def compare(config: Mapping[str, Any]) -> dict[str, Any]:
    """What `fieldctr compare` finds, of `compose("compare", ["runs=...", ...])`: the content of comparison.json.

    It is left in the folder `output`, also as Markdown, CSV and LaTeX.
    """
    settings = parse(CompareConfig, config, "")
    found = comparisons(settings)
    for name, text in tables.files_of(found).items():
        write_text(Path(settings.output) / name, text)
    return {"comparisons": found}


def comparisons(config: CompareConfig) -> list[dict[str, Any]]:
    """One for each data set and combination of conditions, as plain values; nothing is written."""
    finished, unfinished = find_runs(listed(config.runs))
    runs, trials = load_runs(finished)
    if not runs:
        raise UserError(nothing_final(config.runs, trials, unfinished))
    against = None if config.against is None else " ".join(yaml(part) for part in listed(config.against))
    found = benches(runs, by=listed(config.by), within=listed(config.within), against=against)
    return [on_bench(bench, config, left_out(trials, unfinished)) for bench in found]


def on_bench(bench: Bench, config: CompareConfig, notes: Sequence[str]) -> dict[str, Any]:
    """One comparison, with its slices."""
    ground = ground_of(bench, config)
    asked: list[str] = [*dict.fromkeys(config.metrics)]
    metrics = [metric for metric in asked if metric != "gauc" or ground.rows.group is not None]
    said = [*ground.notes, *notes]
    if not asked:
        raise UserError("metrics=[]: name one at least, such as auc")
    if not metrics:
        raise UserError(f"metrics={asked}: {bench.dataset} has no group, whose AUCs could be averaged. Add auc")
    if len(metrics) < len(asked):
        said.append("gAUC is left out: the dataset has no group")
    if by_frequencies(config) and any(run.config.get("train_rows", "all") != "all" for run in bench.runs):
        said.append("frequencies are those of the whole train split: a run with train_rows has seen less of it")
    terms = Terms(listed(config.by), metrics, config.split, config.level, config.bound, ground.unit)
    scores = {
        name: {seed: scores_of(run, config.split, ground.kept) for seed, run in seeds.items()}
        for name, seeds in bench.arms.items()
    }
    slices = [slicing(ground, name, config) for name in listed(config.slices)]  # a misspelt one is told at once
    found = compared(bench, ground.rows, scores, terms, said)
    if slices:
        found["slices"] = [sliced(one, ground.rows, scores, bench.against, terms) for one in slices]
    return found


def nothing_final(runs: str | list[str], trials: Sequence[Path], unfinished: Sequence[Path]) -> str:
    """Why there is nothing to compare."""
    if trials:
        return (
            f"runs={yaml(runs)}: all {len(trials)} finished runs are trials of a search, which never see the test "
            "split. Train with the settings that were found, and compare those runs"
        )
    return f"runs={yaml(runs)}: none of its {len(unfinished)} runs has finished"


def left_out(trials: Sequence[Path], unfinished: Sequence[Path]) -> list[str]:
    """What is said of runs that do not count."""
    notes = [f"{len(trials)} trials of a search are left out: they never see the test split"] if trials else []
    if unfinished:
        some = ", ".join(map(str, unfinished[:3])) + (", ..." if len(unfinished) > 3 else "")
        notes.append(f"{len(unfinished)} unfinished runs are left out: {some}")
    return notes
