"""Finished runs sorted into arms: what is compared, over seeds, within conditions that stay the same."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from fieldctr.artifacts import canonical
from fieldctr.config import yaml
from fieldctr.errors import UserError, nearest
from fieldctr.runs import lasting, load_config, load_result

NAMED = ("model", "enhancer", "dataset", "ablation", "schema", "settings")  # what result.json says
ARM = "arm"  # of a study: the folder in which the runs of its seeds lie
RECORDED = ("settings", "fit_seconds")  # what earlier versions did not record
REPEATS = ("seed", "dataset.fraction_seed", "warm_start")  # keys in which the runs of one arm may differ
MACHINE = "runtime."  # keys that change the last digits, not the recipe
RECIPE = ("trainer.", "optimizer.", "dataset.", "embedding_dim", "train_rows", "schema.")  # beside the model
STUDY = "study.json"  # in a study's folder
SHOWN = 6  # keys in a note


class Run(NamedTuple):
    """One finished run."""

    folder: Path
    config: dict[str, Any]
    result: dict[str, Any]

    @property
    def seed(self) -> int:
        return self.result["seed"]

    @property
    def ground(self) -> str:
        """The data set on which it is compared: its study's, whose arms may read the same rows through other tables."""
        around = self.folder.resolve().parents  # STUDY/runs/DATASET/ARM/seedN
        in_study = len(around) > 3 and (around[3] / STUDY).is_file()
        return around[1].name if in_study else self.result["dataset"]


Arms = dict[str, dict[int, Run]]  # by name, by seed


class Bench(NamedTuple):
    """Arms that are compared with each other, and what is to be said of them."""

    dataset: str
    within: dict[str, str]  # the conditions that all of them share
    against: str
    arms: Arms
    notes: list[str]

    @property
    def runs(self) -> list[Run]:
        return [run for seeds in self.arms.values() for run in seeds.values()]


def load_runs(folders: Iterable[Path]) -> tuple[list[Run], list[Path]]:
    """The runs that were evaluated on test, and the trials of searches, which never are."""
    runs = [_load(folder) for folder in folders]
    return [run for run in runs if "test" in run.result], [run.folder for run in runs if "test" not in run.result]


def _load(folder: Path) -> Run:
    run = Run(folder, load_config(folder), load_result(folder))
    for key in RECORDED:
        if key not in run.result:
            raise UserError(f"{folder}: result.json has no {key}, so an earlier version made it. Run it again")
    return run


def benches(runs: Sequence[Run], *, by: Sequence[str], within: Sequence[str], against: str | None) -> list[Bench]:
    """One for each data set and each combination of the conditions. UserError where there is nothing to compare."""
    if not by:
        raise UserError("by=[]: name what an arm is, such as model")
    for key in (*by, *within):
        _refuse_unknown(key, runs)
    conditions = [*([] if "dataset" in by else ["dataset"]), *(key for key in within if key != "dataset")]
    places: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        place = tuple(run.ground if key == "dataset" else _value(run, key) for key in conditions)
        places.setdefault(place, []).append(run)
    found, notes = [], []
    for place, members in places.items():
        shared = dict(zip(conditions, place, strict=True))
        arms, said = _arms(members, by)
        name = ", ".join(f"{key}={value}" for key, value in shared.items())
        if len(arms) > 1 and (against is None or against in arms):
            dataset = shared.pop("dataset", None) or ", ".join(dict.fromkeys(run.result["dataset"] for run in members))
            reference = against if against is not None else _best_on_valid(arms)
            ordered = {reference: arms[reference]} | arms
            found.append(Bench(dataset, shared, reference, ordered, said))
        else:
            why = "only one arm" if len(arms) < 2 else f"no arm {against}"
            notes.append(f"{name or 'all runs'} left out: {why} there ({', '.join(arms)})")
    if not found:
        raise UserError(_nothing(list(places.values()), by, against))
    found[0].notes.extend(notes)
    return found


def _nothing(places: list[list[Run]], by: Sequence[str], against: str | None) -> str:
    names = list(dict.fromkeys(_name(run, by) for members in places for run in members))
    keys = ",".join(by)
    if against is not None and against not in names:
        return f"against={against}: no arm of that name. {nearest(against, names)}Arms by {keys}: {', '.join(names)}"
    if len(names) == 1:
        return f"by={keys}: one arm only, {names[0]} in all runs. Give more runs=, or another key in by="
    return f"by={keys}: the arms ({', '.join(names)}) share no data set and condition: see within= and runs="


def _refuse_unknown(key: str, runs: Sequence[Run]) -> None:
    if key == "seed":
        raise UserError("by=seed: seeds are what an arm is repeated over. Compare by=model or another key")
    known = {*NAMED, ARM, *(leaf for run in runs for leaf in lasting(run.config))}
    branches = {leaf.rpartition(".")[0] for leaf in known}
    if key not in known | branches:
        raise UserError(f"no key '{key}' in the runs' configurations. {nearest(key, sorted(known))}".rstrip())


def _value(run: Run, key: str) -> str:
    if key in NAMED:
        return str(run.result.get(key, "none"))
    if key == ARM:
        return _arm_of_study(run)
    node: Any = run.config
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return canonical(node) if isinstance(node, Mapping | list) else yaml(node)


def _arm_of_study(run: Run) -> str:
    """By where it lies: STUDY/runs/DATASET/ARM/seedN."""
    folder = run.folder.resolve()
    if not any((above / STUDY).is_file() for above in folder.parents[:4]):
        raise UserError(f"by=arm: {run.folder} is no run of a study. Take by=model, or a key of the configuration")
    return folder.parent.name


def _name(run: Run, by: Sequence[str]) -> str:
    return " ".join(_value(run, key) for key in by)


def _arms(runs: Sequence[Run], by: Sequence[str]) -> tuple[Arms, list[str]]:
    """The runs by arm and seed. UserError where the runs of an arm are of several recipes."""
    members: dict[str, list[Run]] = {}
    for run in runs:
        members.setdefault(_name(run, by), []).append(run)
    arms, notes = Arms(), []
    for name, own in members.items():
        _refuse_mixture(name, own, by)
        arms[name] = {}
        for run in own:
            first = arms[name].setdefault(run.seed, run)
            if first is not run:
                notes.append(f"{run.folder} repeats {first.folder} and was left out")
    return {name: dict(sorted(seeds.items())) for name, seeds in arms.items()}, notes


def _refuse_mixture(name: str, runs: Sequence[Run], by: Sequence[str]) -> None:
    differing = {
        key: values for key, values in varied(runs).items() if key not in REPEATS and not key.startswith(MACHINE)
    }
    if differing:
        raise UserError(
            f"by={','.join(by)}: the runs of {name} differ in {_listed(differing)}: they are several arms. "
            f"Add a key to by= or within=, or narrow runs="
        )


def varied(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """The keys in which some runs' configurations differ, with their distinct values."""
    settings = [lasting(run.config) for run in runs]
    found = {}
    for key in sorted({key for own in settings for key in own}):
        values = list({canonical(own.get(key)): own.get(key) for own in settings}.values())
        if len(values) > 1:
            found[key] = values
    return found


def _listed(differing: Mapping[str, Sequence[Any]]) -> str:
    texts = [f"{key} ({', '.join(yaml(value) for value in values[:4])})" for key, values in differing.items()]
    more = len(texts) - SHOWN
    return ", ".join(texts[:SHOWN]) + (f" and {more} more keys" if more > 0 else "")


def _best_on_valid(arms: Arms) -> str:
    return max(arms, key=lambda name: fmean(run.result["valid"]["auc"] for run in arms[name].values()))
