"""`fieldctr search model=fat dataset=shop trials=20`: the best settings on valid, written where `train` finds them."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from fieldctr.catalog import PACKAGE, conf_dir, groups
from fieldctr.commands.launch import compose
from fieldctr.commands.study import begin, cell_state, having, run_all
from fieldctr.config import listed, parse
from fieldctr.disk import write_text
from fieldctr.errors import UserError
from fieldctr.studies import record
from fieldctr.studies.plan import Cell, SearchTerms, StudyConfig, arms_of, key_of
from fieldctr.studies.schedule import Schedule
from fieldctr.studies.search import Trial
from fieldctr.studies.spaces import Settings, words_of


@dataclass(frozen=True)
class SearchConfig(SearchTerms):
    """The root of `fieldctr search`."""

    spaces: str | list[str] | None
    choices: dict[str, Any] | None = None
    config_dir: str | None = None


def search(config: Mapping[str, Any]) -> Path:
    """Run, or go on with, the search that `compose("search", [...])` describes; gives the YAML of the best settings."""
    settings = parse(SearchConfig, config, "")
    target = tuned_folder(settings.config_dir)
    asked = compose("train", settings.words, config_dir=settings.config_dir)["choices"]
    study, dataset = as_study(settings, asked), asked["dataset"]
    name = "_".join([dataset, *own_names(asked)])
    folder = Path(settings.outputs) / "search" / name
    state = cell_state(study, folder, Cell(dataset, arms_of(study)[0]), {})
    if state.search is None:
        raise UserError(f"{name}: there is nothing to search: its space is empty, or the words fix all its keys")
    schedule = Schedule(study, folder, [state], [])
    with having(folder):
        begin(study, schedule)
        run_all(schedule)
        best = state.search.best()
        if best is None:
            raise UserError(f"no trial of {folder} has finished: {'; '.join(e for _, e in schedule.errors.values())}")
        print("\n".join([trial_table(schedule), *record.edges(folder)]))
        path = target / f"{name}.yaml"
        leave(path, settings, best, schedule.results[schedule.trial(state, best.settings, best.number).name].valid)
    return path


def main(node: dict[str, Any]) -> None:
    """Search, print the trials, say where the settings are; exit code 1 where trials failed."""
    path = search(node)
    failures = record.failures(Path(node["outputs"]) / "search" / path.stem)
    print(f"wrote {path}: `fieldctr train` takes it for this data set and model; tuned=none leaves it out")
    if failures:
        print(record.failure_table(failures))
        print("fieldctr: the same call tries what failed again, and only that", file=sys.stderr)
        raise SystemExit(1)


def tuned_folder(config_dir: str | None) -> Path:
    """Where settings are found again: in the user's own folder of YAML, else in the checkout's."""
    if config_dir is not None:
        return Path(config_dir) / "tuned"
    if conf_dir().is_relative_to(PACKAGE):
        raise UserError(
            "the settings need a folder that is yours: --config-dir DIR writes DIR/tuned/DATASET_MODEL.yaml, and "
            "`fieldctr train --config-dir DIR` finds them there"
        )
    return conf_dir() / "tuned"


def own_names(chosen: Mapping[str, Any]) -> list[str]:
    """The model, and the enhancer if there is one."""
    return [str(chosen[group]) for group in ("model", "enhancer") if chosen[group] != "none"]


def as_study(config: SearchConfig, chosen: Mapping[str, Any]) -> StudyConfig:
    """A study of one arm and no seeds."""
    words = [word for word in config.words if key_of(word) != "dataset"]
    given = {key: value for key, value in asdict(config).items() if key not in ("spaces", "words", "engine", "tracker")}
    return StudyConfig(
        **given,
        engine=config.engine,
        tracker=config.tracker,
        name=None,
        question=None,
        datasets=chosen["dataset"],
        models=[],
        over={},
        arms={
            chosen["model"]: {"words": words, "space": listed(config.spaces) if config.spaces else own_names(chosen)}
        },
        same=[],
        words=[],
        settings="searched",
        seeds=[],
        against=None,
        within=[],
        metrics=["auc"],
        slices=[],
        scaling=None,
    )


def trial_table(schedule: Schedule) -> str:
    """The trials, best last."""
    (state,) = schedule.cells
    assert state.search is not None
    order = sorted(state.search.trials(), key=lambda one: (one.score is not None, one.score or 0.0))
    return "\n".join(line(one) for one in order)


def line(trial: Trial) -> str:
    score = "" if trial.score is None else f"{trial.score:.4f}"
    return f"{trial.number:4} {trial.state:7}{score:>8}  {' '.join(words_of(trial.settings))}"


def leave(path: Path, config: SearchConfig, best: Trial, valid: Mapping[str, float]) -> None:
    """Write the settings as YAML, with what the call fixed besides; other settings that stood there are kept beside."""
    fixed = {key_of(word): word.partition("=")[2] for word in config.words if key_of(word) not in groups()}
    kept: Settings = {key: yaml.safe_load(value) for key, value in fixed.items() if not key.startswith("dataset.")}
    call = shlex.join(["fieldctr", "search", *config.words, f"trials={config.trials}"])
    head = (
        f"# @package _global_\n# Settings of {path.stem}: best {config.objective} of valid in {config.trials} trials.\n"
        f"# Run   {call}\n# Seen  valid AUC {valid['auc']:.4f}, LogLoss {valid['logloss']:.4f} "
        f"(seed {config.search_seed}, sampler {config.sampler})\n"
    )
    text = head + yaml.safe_dump(nested({**kept, **best.settings}), sort_keys=False)
    if path.exists() and (before := path.read_text(encoding="utf-8")) != text:
        earlier = path.with_name(f"{path.name}.earlier")
        write_text(earlier, before)
        print(f"fieldctr: {path} had other settings: they are kept in {earlier.name}", file=sys.stderr)
    write_text(path, text)


def nested(settings: Settings) -> dict[str, Any]:
    """Dotted keys as nodes."""
    nodes: dict[str, Any] = {}
    for key, value in settings.items():
        *parents, leaf = key.split(".")
        node = nodes
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return nodes
