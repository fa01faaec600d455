"""`fieldctr compare runs=GLOB by=model against=fat`: which arm is better, by how much, and how sure that is."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np

from fieldctr.analysis.comparison import tables
from fieldctr.analysis.comparison.arms import Bench, Run, benches, load_runs
from fieldctr.analysis.comparison.clusters import clusters_of
from fieldctr.analysis.comparison.comparison import Terms, compared
from fieldctr.analysis.comparison.effects import Rows
from fieldctr.analysis.comparison.notes import reads_of_test
from fieldctr.analysis.comparison.slices import DAY, Slicing, by_field, days, sliced
from fieldctr.analysis.scaling.report import as_csv
from fieldctr.commands.lint import TimeConfig, time_of
from fieldctr.commands.trained import dataset_of, downsampled
from fieldctr.config import Between, Weight, build, parse, yaml
from fieldctr.data.bad_lines import explained
from fieldctr.data.dataset import Dataset
from fieldctr.data.prepare import SOURCE
from fieldctr.data.table import Table
from fieldctr.data.test_reads import read_often
from fieldctr.disk import write_json, write_text
from fieldctr.errors import UserError
from fieldctr.runs import check_run, find_runs

Name = str | int | float | bool


@dataclass(frozen=True)
class CompareConfig:
    """The root of `fieldctr compare`."""

    data_root: str
    outputs: str
    runs: str | list[str]
    by: str | list[str]
    against: Name | list[Name] | None
    within: str | list[str]
    metrics: list[Literal["auc", "logloss", "gauc", "ne", "ece"]]
    split: Literal["valid", "test"]
    clusters: str
    slices: str | list[str]
    time: dict[str, Any] | None
    bound: Weight | None
    level: Annotated[float, Between(0.5, 0.9999)]
    output: str


class Bed(NamedTuple):
    """The rows that a bench's arms were evaluated on."""

    dataset: Dataset  # of the reference
    node: dict[str, Any]  # its configuration
    rows: Rows
    kept: np.ndarray  # (R,) mask of the split's rows that count: those with a weight
    unit: str | None


def main(node: dict[str, Any]) -> None:
    """Print what can be said, and leave it as JSON, Markdown, CSV and LaTeX."""
    config = parse(CompareConfig, node, "")
    found = compare(config)
    folder = Path(config.output)
    page = tables.markdown(found)
    write_text(folder / "comparison.md", page)
    write_text(folder / "comparison.csv", as_csv(tables.csv_rows(found)))
    write_text(folder / "comparison.tex", tables.latex(found))
    write_json(folder / "comparison.json", {"comparisons": found})
    print("\n\n".join(tables.terminal(one) for one in found))
    print(f"{folder}/comparison.md")


def compare(config: CompareConfig) -> list[dict[str, Any]]:
    """One comparison for each data set and combination of conditions, as plain values."""
    finished, unfinished = find_runs(listed(config.runs))
    runs, trials = load_runs(finished)
    if not runs:
        raise UserError(nothing_to_compare(config.runs, trials, unfinished))
    against = None if config.against is None else " ".join(yaml(part) for part in listed(config.against))
    found = []
    for bench in benches(runs, by=listed(config.by), within=listed(config.within), against=against):
        bench.notes.extend(left_out(unfinished, trials))
        found.append(on_bench(bench, config))
    return found


def nothing_to_compare(runs: str | list[str], trials: list[Path], unfinished: list[Path]) -> str:
    if trials:
        return (
            f"runs={yaml(runs)}: its {len(trials)} finished runs are trials of a search, which never see the test "
            "split. Train with the settings that were found, then compare"
        )
    return f"runs={yaml(runs)}: none of its {len(unfinished)} runs has finished"


def left_out(unfinished: list[Path], trials: list[Path]) -> list[str]:
    """What is said of runs that do not count."""
    notes = [f"{len(trials)} trials of a search were left out: they never see the test split"] if trials else []
    if unfinished:
        some = ", ".join(map(str, unfinished[:3])) + (", ..." if len(unfinished) > 3 else "")
        notes.append(f"{len(unfinished)} runs have not finished and were left out: {some}")
    return notes


def on_bench(bench: Bench, config: CompareConfig) -> dict[str, Any]:
    """One comparison, with its slices."""
    notes: list[str] = []
    bed = bed_of(bench, config, notes)
    asked: list[str] = [*dict.fromkeys(config.metrics)]
    metrics = [metric for metric in asked if metric != "gauc" or bed.rows.group is not None]
    if not metrics:
        raise UserError("metrics=[gauc]: the dataset has no group of users. Add auc")
    if len(metrics) < len(asked):
        notes.append("gAUC is left out: the dataset has no group of users")
    terms = Terms(listed(config.by), metrics, config.split, config.level, config.bound, bed.unit)
    scores = {
        name: {seed: scores_of(run, config.split, bed.kept) for seed, run in seeds.items()}
        for name, seeds in bench.arms.items()
    }
    found = compared(bench, bed.rows, scores, terms, notes)
    if config.slices:
        found["slices"] = [
            sliced(slicing(bed, name, config), bed.rows, scores, bench.against, terms) for name in listed(config.slices)
        ]
    return found


def bed_of(bench: Bench, config: CompareConfig, notes: list[str]) -> Bed:
    """The rows that all arms share; UserError where they do not."""
    tables = {run.result["data_digest"]: run for run in reversed(bench.runs)}
    datasets = {digest: dataset_for(run, config) for digest, run in tables.items()}
    reference = next(iter(bench.arms[bench.against].values()))
    dataset = datasets[reference.result["data_digest"]]
    refuse_other_rows(datasets, bench, config.split)
    split = getattr(dataset, config.split)
    kept = np.ones(len(split.label), bool) if split.weight is None else np.asarray(split.weight) > 0
    weight = np.ones(len(kept)) if split.weight is None else np.asarray(split.weight, np.float64)
    group = None if split.group is None else np.asarray(split.group)[kept]
    rows = Rows(np.asarray(split.label)[kept] > 0.5, weight[kept], group)
    bed = clustered(Bed(dataset, reference.config, rows, kept, None), config)
    notes.extend(facts_of(bed, config))
    return bed


def dataset_for(run: Run, config: CompareConfig) -> Dataset:
    rate = run.config["dataset"].get("negative_rate")
    return dataset_of(run.folder, run.result, negative_rate=rate, outputs=Path(config.outputs), splits=[config.split])


def refuse_other_rows(datasets: Mapping[str, Dataset], bench: Bench, split: str) -> None:
    """UserError where tables differ in the rows of the split: scores of other rows cannot be compared."""
    first = next(iter(bench.arms[bench.against].values())).result["data_digest"]
    for digest, dataset in datasets.items():
        own, other = getattr(datasets[first], split), getattr(dataset, split)
        for part in ("label", "weight", "group"):
            if not alike(getattr(own, part), getattr(other, part)):
                arms = {
                    key: [name for name, seeds in bench.arms.items() if key in digests_of(seeds.values())]
                    for key in (first, digest)
                }
                raise UserError(
                    f"the runs of {bench.dataset} are of tables whose {split} rows have other {part}s: {first} "
                    f"({', '.join(arms[first])}) and {digest} ({', '.join(arms[digest])}). Scores of different rows "
                    "cannot be compared: narrow runs=, or name in within= the key that made the tables differ"
                )


def digests_of(runs: Iterable[Run]) -> set[str]:
    return {run.result["data_digest"] for run in runs}


def alike(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return a is b is None or (a is not None and b is not None and np.array_equal(a, b))


def clustered(bed: Bed, config: CompareConfig) -> Bed:
    """With the clusters that were asked for."""
    asked = config.clusters
    if asked == "none" or (asked == "auto" and bed.rows.group is None):
        return bed
    if asked in ("auto", "group"):
        if bed.rows.group is None:
            raise UserError("clusters=group: the dataset has no group. Take day, a field, or none")
        return bed._replace(rows=bed.rows._replace(cluster=clusters_of(bed.rows.group)), unit=unit_of(bed.node))
    codes = slicing(bed, asked, config).codes
    return bed._replace(rows=bed.rows._replace(cluster=clusters_of(codes)), unit=asked)


def unit_of(node: Mapping[str, Any]) -> str:
    """What a group of the dataset is called: user for user_id."""
    name = str(node["dataset"].get("group") or "group")
    return name.removesuffix("_id") if name.removesuffix("_id") else name


def facts_of(bed: Bed, config: CompareConfig) -> list[str]:
    """What a reader must know of the rows."""
    notes = []
    if config.split == "test":
        notes += reads_of_test(bed.dataset.folder, read_often)
    else:
        notes.append("these are rows of valid, on which epochs and settings were chosen: it flatters all arms")
    if not bed.kept.all() or (bed.rows.weight != 1).any():
        notes.append("rows count by their sample weights, in all metrics and in their errors")
    if bed.dataset.negative_rate is not None:
        notes.append(downsampled(bed.dataset.negative_rate))
    if bed.unit is None:
        notes.append("rows are taken as independent: the dataset has no group of users, or clusters=none")
    return notes


def slicing(bed: Bed, name: str, config: CompareConfig) -> Slicing:
    """By a field of the reference's table, or by day."""
    if name == DAY and DAY not in {field.name for field in bed.dataset.schema.fields}:
        found = by_day(bed, config)
    else:
        found = by_field(bed.dataset, config.split, name)
    return found._replace(codes=found.codes[bed.kept])


def by_day(bed: Bed, config: CompareConfig) -> Slicing:
    """The day of each row, from the raw table."""
    node = bed.node["dataset"]
    time = parse(TimeConfig, config.time, "time") if config.time else time_of(node)
    if time is None:
        raise UserError("day: which column has the moment of a row? Name it: 'time={column: ts, unit: s}'")
    table: Table = build(node["source"], "dataset.source", Path(node["raw_dir"]), kind=SOURCE)
    with explained(table.files, readings=table.written):
        return days(table.frame, time.column, time.unit, bed.dataset, config.split)


def scores_of(run: Run, split: str, kept: np.ndarray) -> Callable[[], np.ndarray]:
    """What reads the logits of a run, once its file is known to be whole."""
    path = run.folder / f"{split}.scores.npy"

    def load() -> np.ndarray:
        logit = np.load(path, mmap_mode="r")
        if len(logit) != len(kept):
            raise UserError(f"{path} has {len(logit):,} scores, and {split} has {len(kept):,} rows: train it again")
        return logit if kept.all() else logit[kept]

    if not path.exists():
        raise UserError(f"{path} is missing: train it again")
    check_run(run.folder, [path.name])
    return load


def listed(value: Any) -> list[Any]:
    """One value, or several."""
    return list(value) if isinstance(value, list) else [value]
