"""A study as its YAML says it, and what follows of it: arms, cells, and the words of each run.

An arm is what is compared. A cell is an arm on a data set: it is searched, its settings are chosen on valid, and its
seeds are trained with them. A cell's folders are named by what they are, so that one more arm or seed repeats nothing.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from fieldctr.config import Between, Positive, TrackerConfig, listed
from fieldctr.errors import UserError, unknown
from fieldctr.studies.jobs import Job
from fieldctr.studies.search import Objective, Sampler
from fieldctr.studies.spaces import Settings, words_of

BASELINES = ("lightgbm", "logistic")  # arms of `fieldctr baseline`: boosted trees, scikit-learn's logistic regression
ARM_KEYS = ("words", "space", "settings", "settings_of", "starts_from")
SETTINGS = ("searched", "tuned", "defaults")
NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")
OF_BASELINES = ("dataset", "outputs", "data_root")  # keys that they share with models
SEARCH, RUNS, STAGES = "search", "runs", "stages"  # folders of a study


@dataclass(frozen=True)
class EngineConfig:
    """Where the runs of a study go. Node `engine`."""

    name: Literal["local", "slurm", "ray"]
    workers: Positive | Literal["auto"]
    gpus: Literal["auto", "none"]
    options: dict[str, Any]


@dataclass(frozen=True)
class SearchTerms:
    """How much is searched, and where runs go: the keys that studies and searches share."""

    data_root: str
    outputs: str
    words: list[str]
    trials: Positive
    seconds: Positive | None
    sampler: Sampler
    objective: Objective
    search_seed: Annotated[int, Between(0, 2**32 - 1)]
    prune: bool
    on_failure: Literal["continue", "stop", "retry"]
    retries: Positive
    engine: EngineConfig
    tracker: TrackerConfig


@dataclass(frozen=True)
class StudyConfig(SearchTerms):
    """The root of `fieldctr study`."""

    name: str | None
    question: str | None
    datasets: str | list[str]
    models: str | list[str]
    over: dict[str, Any]
    arms: dict[str, Any]
    same: list[str]
    settings: Literal["searched", "tuned", "defaults"]
    seeds: Positive | list[int]
    against: str | None
    within: list[str]
    metrics: list[str]
    slices: list[str]
    scaling: dict[str, Any] | list[dict[str, Any]] | None
    choices: dict[str, Any] | None = None
    config_dir: str | None = None  # of the user's own YAML


class Arm(NamedTuple):
    """What is compared: the words that make it, and where its settings come from."""

    name: str
    words: tuple[str, ...]
    space: tuple[str, ...] | None = None  # names of the spaces that are searched together; None: that of its model
    settings: str | None = None  # of SETTINGS; None: the study's
    settings_of: str | None = None  # the arm whose search it takes
    starts_from: str | None = None  # the arm whose run of the same seed is its warm start
    baseline: Literal["lightgbm", "logistic"] | None = None
    product: tuple[tuple[str, Any], ...] = ()  # of an arm of `over`: its groups with their values

    def short(self, within: Sequence[str]) -> str:
        """The arm's name where it is compared `within` groups."""
        return "_".join(str(value) for group, value in self.product if group not in within) or self.name


class Cell(NamedTuple):
    """An arm on a data set."""

    dataset: str
    arm: Arm

    @property
    def name(self) -> str:
        return f"{self.dataset}/{self.arm.name}"


def seeds_of(config: StudyConfig) -> list[int]:
    """seeds=5 are 1 to 5; seeds=[] are none: the study searches, and test stays sealed."""
    seeds = list(range(1, config.seeds + 1)) if isinstance(config.seeds, int) else config.seeds
    if len(set(seeds)) < len(seeds):
        raise UserError(f"seeds={config.seeds}: expected a number of seeds, or a list of different ones")
    if config.search_seed in seeds:
        raise UserError(f"search_seed={config.search_seed} is one of the seeds: a search needs one of its own")
    return seeds


def arms_of(config: StudyConfig) -> list[Arm]:
    """From `models`, from the products of `over`, and from `arms`, in this order; UserError for what is none."""
    found = [Arm(name, (f"model={name}",)) for name in listed(config.models) if name not in BASELINES]
    for values in itertools.product(*(listed(value) for value in config.over.values())) if config.over else ():
        chosen = dict(zip(config.over, values, strict=True))
        words = tuple(f"{group}={value}" for group, value in chosen.items() if group != "settings")
        name, spaces = "_".join(map(str, values)), _spaces(chosen)
        found.append(Arm(name, words, spaces, chosen.get("settings"), product=tuple(chosen.items())))
    found += [_arm(name, node) for name, node in config.arms.items() if node is not None]
    found += [Arm(name, (), baseline=name) for name in BASELINES if name in listed(config.models)]
    names = [arm.name for arm in found]
    if not names:
        raise UserError("the study has no arms: give models=lr,deepfm or, in its YAML, arms")
    for name in names:
        if not NAME.fullmatch(name) or names.count(name) > 1:
            raise UserError(f"arm '{name}': expected a name of letters, digits, _ . + - that no other arm has")
    for arm in found:
        if arm.settings not in (None, *SETTINGS):
            raise UserError(f"arms.{arm.name}.settings: {unknown('kind of settings', str(arm.settings), SETTINGS)}")
        for key in ("settings_of", "starts_from"):
            other = getattr(arm, key)
            if other is not None and (other not in names or other == arm.name):
                raise UserError(f"arms.{arm.name}.{key}: {unknown('other arm', str(other), names)}")
    for group in config.within:
        if group not in config.over:
            raise UserError(f"within: {unknown('key of over', group, list(config.over))}")
    short = list(dict.fromkeys(arm.short(config.within) for arm in found))
    if config.against and config.against not in short:
        raise UserError(f"against: {unknown('arm', config.against, short)}")
    return found


def _spaces(chosen: Mapping[str, Any]) -> tuple[str, ...] | None:
    """An enhancer's space is searched together with its model's."""
    if "model" not in chosen:
        return None
    enhancer = chosen.get("enhancer", "none")
    return (chosen["model"],) if enhancer == "none" else (chosen["model"], enhancer)


def _arm(name: Any, node: Any) -> Arm:
    """`fat: model=fat ablation=fat_full`, or words in a mapping with the keys of ARM_KEYS."""
    if isinstance(node, str):
        node = {"words": node}
    if not isinstance(node, Mapping):
        raise UserError(f"arms.{name}: expected words such as model=fat, or a mapping with words, got {node!r}")
    for key in node:
        if key not in ARM_KEYS:
            raise UserError(f"arms.{name}: {unknown('key', str(key), ARM_KEYS)}")
    words, space = node.get("words", ""), node.get("space")
    return Arm(
        str(name),
        tuple(words.split() if isinstance(words, str) else map(str, words)),
        None if space is None else tuple(listed(space)),
        node.get("settings"),
        node.get("settings_of"),
        node.get("starts_from"),
    )


def settings_kind(config: StudyConfig, arm: Arm) -> str:
    """Where the arm's settings come from: one of SETTINGS."""
    return arm.settings or config.settings


def key_of(word: str) -> str:
    """The key or group that a word of a call sets."""
    return word.partition("=")[0].lstrip("+~")


def run_words(config: StudyConfig, cell: Cell, study: str) -> list[str]:
    """The words of every run of a cell, but for settings and seed."""
    last = {key_of(word): word for word in (*config.same, *config.words, *cell.arm.words)}
    own, named = list(last.values()), set(last)
    words = [*([] if "dataset" in named else [f"dataset={cell.dataset}"]), *own]
    words += [f"outputs={config.outputs}", f"data_root={config.data_root}"]
    if cell.arm.baseline:
        return [*(word for word in words if key_of(word).partition(".")[0] in OF_BASELINES), "threads=1"]
    usual = {"tracker": tracker_of(config), "runtime.threads": "1", "resume": "true"}
    if settings_kind(config, cell.arm) != "tuned":
        usual["tuned"] = "none"
    words += [f"{key}={value}" for key, value in usual.items() if key not in named]
    if tracker_of(config) == "wandb":
        tracker = config.tracker
        words += [f"tracker.group={study}", f"tracker.tags=[{cell.arm.name}]", f"tracker.mode={tracker.mode}"]
        words += [f"tracker.project={tracker.project}"]
    return words


def tracker_of(config: StudyConfig) -> str:
    return config.tracker.name


def final_job(config: StudyConfig, folder: Path, cell: Cell, settings: Settings, seed: int, **how: Any) -> Job:
    """The training of a seed with the chosen settings; only it reads test."""
    name = f"{RUNS}/{cell.name}/seed{seed}"
    words = [*run_words(config, cell, folder.name), *words_of(settings), f"seed={seed}"]
    if cell.arm.starts_from:
        words.append(f"warm_start={start_of(folder, cell, seed)}")
    return Job(name, folder / name, cell.arm.baseline or "train", tuple(words), **how)


def start_of(folder: Path, cell: Cell, seed: int) -> Path:
    """The run that the cell's run of this seed starts from."""
    return folder / RUNS / cell.dataset / str(cell.arm.starts_from) / f"seed{seed}"


def trial_job(config: StudyConfig, folder: Path, cell: Cell, settings: Settings, number: int, **how: Any) -> Job:
    """A trial of the cell's search: test stays sealed."""
    name = f"{SEARCH}/{cell.name}/trial_{number:03d}"
    own = [*run_words(config, cell, folder.name), *words_of(settings), f"seed={config.search_seed}"]
    return Job(name, folder / name, "train", (*own, "evaluate_test=false"), **how)
