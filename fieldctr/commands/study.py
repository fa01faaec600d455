"""`fieldctr study`: search on valid, train the seeds with what was chosen, compare, report."""

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fieldctr.artifacts import digest
from fieldctr.catalog import conf_dir
from fieldctr.commands.launch import compose
from fieldctr.commands.types import refuse_values
from fieldctr.config import flat, listed, parse
from fieldctr.disk import read_object, remove, write_json
from fieldctr.errors import UserError
from fieldctr.locks import HeldError, lock
from fieldctr.runs import CONFIG, config_digest
from fieldctr.signals import Interrupted
from fieldctr.studies import record
from fieldctr.studies.engines.choose import engine
from fieldctr.studies.jobs import Engine, Job
from fieldctr.studies.plan import (
    RUNS,
    SEARCH,
    STAGES,
    Arm,
    Cell,
    StudyConfig,
    arms_of,
    key_of,
    run_words,
    seeds_of,
    settings_kind,
)
from fieldctr.studies.schedule import CHOSEN, CellState, Schedule, run
from fieldctr.studies.search import Search
from fieldctr.studies.spaces import Space, load_space, space_text

STUDY = "study.json"
WORK = "fieldctr.commands.job:work"  # of a worker; it imports torch, which the study itself does not need
FIXED = ("sampler", "objective", "search_seed", "settings")  # what a study that goes on must have as before
METRICS = ("auc", "logloss", "gauc", "ne", "ece")  # those of a comparison
STAGE_KEYS = ("dataset", "schema", "encoder", "enhancer")  # of a run's configuration: what decides table and vectors


def study(config: Mapping[str, Any]) -> Path:
    """Run, or go on with, the study that `compose("study", [...])` describes; gives its folder."""
    settings = parse(StudyConfig, config, "")
    schedule = scheduled(settings)
    folder = schedule.folder
    with having(folder):
        forget_what_never_began(folder)
        begin(settings, schedule)
        run_all(schedule)
        from fieldctr.commands.conclude import conclude

        conclude(schedule)
    return folder


def main(node: dict[str, Any]) -> None:
    """Run the study, print its answer and where it lies; exit code 1 where runs failed."""
    folder = study(node)
    failures = record.failures(folder)
    print((folder / record.ANSWER).read_text(encoding="utf-8").rstrip())
    if failures:
        print(record.failure_table(failures))
        print(
            f"fieldctr: {len(failures)} jobs failed. The same call tries them again: all else is kept", file=sys.stderr
        )
        raise SystemExit(1)


def scheduled(config: StudyConfig) -> Schedule:
    """All that can be known of the study before anything runs; a UserError names the first mistake."""
    seeds, arms = seeds_of(config), arms_of(config)
    if not set(config.metrics) <= {*METRICS} or not config.metrics:
        raise UserError(f"metrics={config.metrics}: expected some of {', '.join(METRICS)}")
    folder = Path(config.outputs) / "studies" / (config.name or name_of(config, arms))
    states, stages = [], {}
    for dataset in listed(config.datasets):
        for arm in arms:
            states.append(cell_state(config, folder, Cell(dataset, arm), stages))
    if not seeds and not any(state.search for state in states):
        raise UserError("seeds=[] asks for searches alone, and no arm has one: give seeds, or settings=searched")
    return Schedule(config, folder, states, seeds)


def name_of(config: StudyConfig, arms: list[Arm]) -> str:
    """Of a study that has none: the YAML's, or one made of its data sets and arms."""
    chosen = (config.choices or {}).get("study", "none")
    if chosen != "none":
        return str(chosen)
    name = f"{'-'.join(listed(config.datasets))}_{'-'.join(arm.name for arm in arms)}"
    return name if len(name) <= 80 else f"{name[:70]}-{digest(name)[:8]}"


def cell_state(config: StudyConfig, folder: Path, cell: Cell, stages: dict[str, Job]) -> CellState:
    """Where a cell begins: its table's job, its search, or the settings that it has without one."""
    words = run_words(config, cell, folder.name)
    node = compose("baseline" if cell.arm.baseline else "train", words, config_dir=config.config_dir)
    refuse_values(node, "baseline" if cell.arm.baseline else "train")  # a mistake is told before anything runs
    stage = stage_of(config, folder, cell, node, stages)
    origin = "fixed" if cell.arm.baseline else origin_of(config, cell)
    if cell.arm.baseline or settings_kind(config, cell.arm) != "searched":
        return CellState(cell, stage, None, {}, origin, config_digest(node))
    if cell.arm.settings_of:
        return CellState(cell, stage, None, None, origin, config_digest(node))
    space = space_of(config, cell, node)
    if not space:
        return CellState(cell, stage, None, {}, "as its YAML has them: nothing to search", config_digest(node))
    search = Search(
        folder / SEARCH / cell.name,
        space,
        sampler=config.sampler,
        trials=config.trials,
        seed=config.search_seed,
        start=flat(node),
    )
    return CellState(cell, stage, search, None, origin, digest([config_digest(node), space_text(space)]))


def origin_of(config: StudyConfig, cell: Cell) -> str:
    """What result.json says of a run's settings."""
    if settings_kind(config, cell.arm) != "searched":
        return ""
    of = f", those of {cell.arm.settings_of}" if cell.arm.settings_of else ""
    return f"searched, {config.trials} trials{of}"


def stage_of(config: StudyConfig, folder: Path, cell: Cell, node: Mapping[str, Any], stages: dict[str, Job]) -> Job:
    """The job that makes the table and the vectors of these runs, one for all that share them."""
    parts = {key: node.get(key) or None for key in STAGE_KEYS}
    parts["source"] = (node.get("model") or {}).get("source")
    parts |= {"knowledge": node["knowledge"]} if node.get("knowledge") else {}
    key = digest(parts)[:8]
    if key not in stages:
        name = f"{STAGES}/{cell.dataset}_{key}"
        words = run_words(config, Cell(cell.dataset, cell.arm._replace(baseline=None)), folder.name)
        stages[key] = Job(name, folder / name, "stages", tuple(words), config.config_dir)
    return stages[key]


def space_of(config: StudyConfig, cell: Cell, node: Mapping[str, Any]) -> Space:
    """What the cell's search tries: the spaces that its arm names, or that of its model, less what the words fix."""
    folders = [*([Path(config.config_dir)] if config.config_dir else []), conf_dir()]
    names = cell.arm.space or (node["choices"]["model"],)
    space: Space = {}
    for name in names:
        space |= {} if name == "none" else load_space(name, folders)
    fixed = {key_of(word) for word in (*config.same, *config.words, *cell.arm.words)}
    leaves = flat(node)
    for key in space:
        if key not in leaves:
            raise UserError(f"{cell.name}: its search space has '{key}', which its configuration lacks")
    return {key: kind for key, kind in space.items() if key not in fixed}


class having:  # noqa: N801  used as a function
    """A context in which the study's folder is this process's alone; a signal says how the call goes on."""

    def __init__(self, folder: Path) -> None:
        try:
            self.release = lock(folder)
        except HeldError as held:
            raise UserError(
                f"the study in {folder} is being run by another process ({held}). `fieldctr study status` shows it"
            ) from held

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Interrupted):
            error.kept = error.kept or "; what has finished is kept, what was running left its checkpoints"
        self.release()


def forget_what_never_began(folder: Path) -> None:
    """A study without a run is nobody's: its table could not be read, say. Who has mended that calls again."""
    if not any(path for part in (SEARCH, RUNS) for path in (folder / part).rglob(CONFIG)):
        remove([folder / SEARCH, folder / STUDY])


def begin(config: StudyConfig, schedule: Schedule) -> None:
    """Write what the study is, unless another one lies there: that is refused."""
    folder, arms = schedule.folder, arms_of(config)
    asked = asdict(config)
    content = {
        "name": folder.name,
        **{key: asked[key] for key in ("question", "metrics", "trials", "seconds", "within", *FIXED)},
        "datasets": listed(config.datasets),
        "arms": {arm.name: {**arm._asdict(), "overrides": [*config.same, *config.words, *arm.words]} for arm in arms},
        "against": config.against,
        "seeds": schedule.seeds,
        "cells": {state.cell.name: state.digest for state in schedule.cells},
    }
    before = read_object(folder / STUDY) if (folder / STUDY).exists() else None
    if before is not None:
        refuse_another(folder, before, content)
        content["cells"] = {**before["cells"], **content["cells"]}
    write_json(folder / STUDY, content)


def refuse_another(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """UserError where the folder's study made its runs otherwise. More arms and seeds are welcome."""
    chosen = any((folder / SEARCH).rglob(CHOSEN))
    for key in ("trials", "seconds"):
        if chosen and before.get(key) != now[key]:
            raise UserError(
                f"{folder} has seeds that were trained with what searches of {key}={before.get(key)} chose, not "
                f"{now[key]}: give another name="
            )
    for key in FIXED:
        if before.get(key) != now[key]:
            raise UserError(f"{folder} holds a study with {key}={before.get(key)}, not {now[key]}: give another name=")
    for name, found in now["cells"].items():
        if before["cells"].get(name, found) != found:
            raise UserError(
                f"{folder} holds a study in which {name} had another configuration or search space: its words, or the "
                "YAML behind them, have changed. Give another name= to keep both, or remove the folder"
            )


def run_all(schedule: Schedule) -> None:
    """Run what is missing, and keep the record of where the study stands."""
    counts = schedule.counts()
    print(f"{schedule.folder}: {counts['jobs']} jobs, {len(schedule.cells)} cells", file=sys.stderr)
    with engine_of(schedule) as engine:
        run(
            schedule,
            engine,
            say=lambda line: print(line, file=sys.stderr, flush=True),
            changed=lambda: record.write_status(schedule, engine.slots),
        )
    record.write_status(schedule, engine.slots)
    record.write(schedule)


def engine_of(schedule: Schedule) -> Engine:
    """The engine that the configuration names."""
    return engine(schedule.config.engine, WORK, logs=schedule.folder / "slurm")
