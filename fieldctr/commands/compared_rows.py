"""The rows that arms are compared on: their labels, users, weights, days, and the scores of the runs."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np

from fieldctr.analysis.comparison.arms import Bench, Run
from fieldctr.analysis.comparison.clusters import clusters_of
from fieldctr.analysis.comparison.effects import Rows
from fieldctr.analysis.comparison.slices import DAY, Slicing, by_field, by_frequency, counted_field, counts_train, days
from fieldctr.commands.lint import TimeConfig, time_of
from fieldctr.commands.trained import dataset_of, downsampled
from fieldctr.config import Between, Weight, build, listed, parse
from fieldctr.data.bad_lines import explained
from fieldctr.data.dataset import Dataset, Split
from fieldctr.data.prepare import SOURCE
from fieldctr.data.table import Table
from fieldctr.data.test_reads import read_often
from fieldctr.errors import UserError
from fieldctr.runs import check_run

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


class Ground(NamedTuple):
    """The rows of a bench, and what they are made of."""

    dataset: Dataset  # of the reference
    node: dict[str, Any]  # its configuration of the dataset
    rows: Rows
    kept: np.ndarray  # (R,) mask of the split's rows that count: those with a weight above 0
    unit: str | None  # what a cluster is called; None where each row is alone
    notes: list[str]


def ground_of(bench: Bench, config: CompareConfig) -> Ground:
    """The rows that all arms share. UserError where they do not."""
    tables: dict[str, Run] = {}
    for run in bench.runs:
        tables.setdefault(run.result["data_digest"], run)
    datasets = {digest: _dataset(run, config) for digest, run in tables.items()}
    reference = next(iter(bench.arms[bench.against].values()))
    dataset = datasets[reference.result["data_digest"]]
    grouped = _refuse_other_rows(dataset, datasets, bench, config.split)
    rows, kept = rows_of(getattr(dataset, config.split), getattr(grouped, config.split).group)
    node = {**tables[grouped.digest].config["dataset"], "source": reference.config["dataset"]["source"]}
    ground = _clustered(Ground(dataset, node, rows, kept, None, []), config)
    return ground._replace(notes=list(_notes(ground, config)))


def rows_of(split: Split, group: np.ndarray | None) -> tuple[Rows, np.ndarray]:
    """The rows of a split that count, those with a weight above 0, and which these are, (R,)."""
    weight = np.ones(len(split), np.float64) if split.weight is None else np.asarray(split.weight, np.float64)
    kept = weight > 0
    group = None if group is None else np.asarray(group)[kept]
    return Rows(np.asarray(split.label)[kept] > 0.5, weight[kept], group), kept


def _dataset(run: Run, config: CompareConfig) -> Dataset:
    rate = run.config["dataset"].get("negative_rate")
    splits = [config.split, *(["train"] if by_frequencies(config) else [])]
    return dataset_of(run.folder, run.result, negative_rate=rate, outputs=Path(config.outputs), splits=splits)


def by_frequencies(config: CompareConfig) -> bool:
    """Whether a slicing counts rows of train."""
    return any(map(counts_train, listed(config.slices)))


def _refuse_other_rows(first: Dataset, datasets: Mapping[str, Dataset], bench: Bench, split: str) -> Dataset:
    """The first dataset with a group, or the reference's. UserError where tables differ in the rows of the split."""
    grouped = first
    for dataset in datasets.values():
        own, other = getattr(grouped, split), getattr(dataset, split)
        for what, same in (
            ("labels", np.array_equal(own.label, other.label)),
            ("weights", _equal(own.weight, other.weight)),
            ("groups", own.group is None or other.group is None or _same_parts(own.group, other.group)),
        ):
            if not same:
                arms = {table.digest: ", ".join(_arms_on(table.digest, bench)) for table in (grouped, dataset)}
                raise UserError(
                    f"the runs on {bench.dataset} are of tables with other {what} in {split}: "
                    f"{' and '.join(f'{digest} ({names})' for digest, names in arms.items())}. Scores of different "
                    "rows cannot be compared: narrow runs=, or name in within= the key that made the tables differ"
                )
        grouped = dataset if own.group is None and other.group is not None else grouped
    return grouped


def _arms_on(digest: str, bench: Bench) -> Iterator[str]:
    for name, seeds in bench.arms.items():
        if any(run.result["data_digest"] == digest for run in seeds.values()):
            yield name


def _equal(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return np.array_equal(a, b) if a is not None and b is not None else a is b


def _same_parts(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two codings say of the same rows that they are one user's."""
    if np.array_equal(a, b) or len(a) != len(b):
        return len(a) == len(b)
    pairs = np.unique(np.stack([a, b]), axis=1).shape[1]
    return np.array_equal(a == 0, b == 0) and pairs == len(np.unique(a)) == len(np.unique(b))


def _clustered(ground: Ground, config: CompareConfig) -> Ground:
    """With the clusters that were asked for."""
    asked, group = config.clusters, ground.rows.group
    if asked == "none" or (asked == "auto" and group is None):
        return ground
    if asked not in ("auto", "group"):
        codes, unit = slicing(ground, asked, config, key="clusters").codes, asked
    elif group is None:
        raise UserError("clusters=group: the dataset has no group. Take day, a field, or none")
    else:
        codes, unit = group, str(ground.node["group"]).removesuffix("_id") or "group"
    return ground._replace(rows=ground.rows._replace(cluster=clusters_of(codes)), unit=unit)


def _notes(ground: Ground, config: CompareConfig) -> Iterator[str]:
    """What a reader must know of the rows."""
    if config.split == "valid":
        yield "these are rows of valid, on which epochs and settings are chosen: every arm looks better than it is"
    elif any(counts := read_often(ground.dataset.folder)):
        runs, configurations = counts
        yield f"this test split has been read by {_count(runs, 'run')} of {_count(configurations, 'configuration')}"
    if not ground.kept.all() or (ground.rows.weight != 1).any():
        yield "rows count by their sample weights, in all metrics and in their errors"
    if ground.dataset.negative_rate is not None:
        yield downsampled(ground.dataset.negative_rate)
    if ground.unit is None:
        yield "rows are taken as independent of each other" + (
            ": the dataset has no group" if ground.rows.group is None else ", as clusters=none says"
        )


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def slicing(ground: Ground, name: str, config: CompareConfig, *, key: str = "slices") -> Slicing:
    """Which value of a field of the reference's table, how often train has it, or which day; `key` asked for it."""
    if name == DAY and DAY not in {field.name for field in ground.dataset.schema.fields}:
        found = _by_day(ground, config, key)
    elif key == "slices" and (counted := counted_field(name, ground.node, key=key)) is not None:
        found = by_frequency(ground.dataset, config.split, counted, key=key)
    else:
        found = by_field(ground.dataset, config.split, name, key=key)
    return found._replace(codes=found.codes[ground.kept])


def _by_day(ground: Ground, config: CompareConfig, key: str) -> Slicing:
    """From the raw table."""
    node = ground.node
    time = parse(TimeConfig, config.time, "time") if config.time else time_of(node)
    if time is None:
        raise UserError(f"{key}=day: which column has the moment of a row? Name it: 'time={{column: ts, unit: s}}'")
    table: Table = build(node["source"], "dataset.source", Path(node["raw_dir"]), kind=SOURCE)
    with explained(table.files, readings=table.written):
        return days(table.frame, time.column, time.unit, ground.dataset, config.split)


def scores_of(run: Run, split: str, kept: np.ndarray) -> Callable[[], np.ndarray]:
    """What reads the logits of a run. UserError where the file is not whole."""
    path = run.folder / f"{split}.scores.npy"
    if not path.exists():
        raise UserError(f"{path} is missing. Train it again")
    check_run(run.folder, [path.name])
    if (found := len(np.load(path, mmap_mode="r"))) != len(kept):
        raise UserError(f"{path} has {found:,} scores, and {split} has {len(kept):,} rows. Train it again")
    return lambda: _read(path, kept)


def _read(path: Path, kept: np.ndarray) -> np.ndarray:
    logit = np.load(path, mmap_mode="r")
    return logit if kept.all() else logit[kept]
