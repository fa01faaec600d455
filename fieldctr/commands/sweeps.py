"""A multirun of `train`: folders named by what a job is, how far it is, and its table at the end.

A job's folder is named by dataset, model, seed and what else varies, never by its number: a seed, a model or a value
more in the same hydra.sweep.dir leaves the others where they are, and with resume=true no finished job runs again.
"""

import contextlib
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from fieldctr.artifacts import digest
from fieldctr.disk import read_object
from fieldctr.errors import UserError
from fieldctr.runs import CONFIG, RESULT, config_digest

ALWAYS = ("dataset", "model", "seed")  # in every name, whether they vary or not
SAFE = re.compile(r"[a-z0-9][a-z0-9._+-]*[a-z0-9+]")  # the same name on every file system; nothing to quote in a shell
LONGEST, DIGITS = 100, 8  # of a name, of which the digest that tells apart what was changed or cut
MINUTE, HOUR = 60, 3600


class Sweep(Callback):
    """Knows the folder of a multirun, and how far it is: its table is printed even when a job fails, and Hydra then
    calls no hook. Workers of a launcher know neither.
    """

    folder: Path | None = None
    total: int | None = None  # jobs, where Hydra's own sweeper makes them
    begun = 0
    before = 0  # jobs whose result was there already, and whose turn has not come
    seconds: list[float]  # that jobs have taken

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        own = type(self)
        arguments: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)  # seed=${hydra:job.num}
        own.folder, own.total, own.begun, own.seconds = Path(config.hydra.sweep.dir), None, 0, []
        own.before = len(list(own.folder.glob(f"*/{RESULT}"))) if config.get("resume") else 0
        if str(config.hydra.sweeper.get("_target_", "")).endswith(BasicSweeper.__name__):
            arguments = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()] + arguments
            own.total = number_of_jobs(arguments)
        with read_write(config), open_dict(config):
            config.hydra.overrides.hydra.append(without(fixed_keys(arguments)))

    @classmethod
    def ran(cls, job: Callable[[], object], *, finished: bool) -> None:
        """Say which job this is and how long the rest may take, then run it. A finished one only shows its numbers."""
        cls.begun += 1
        if finished:
            cls.before -= 1
        elif cls.total:
            print(progress(cls.begun, cls.total, cls.before, cls.seconds), file=sys.stderr)
        began = time.monotonic()
        job()
        if cls.total and not finished:
            cls.seconds.append(time.monotonic() - began)


def run_job(main: Callable[[dict[str, Any], Path], object], node: dict[str, Any], folder: Path) -> None:
    """One job of a multirun: where its very run has finished under another name, that folder is its own."""
    place = same_run(node, folder) if node.get("resume") else folder
    if place != folder:
        folder.rmdir()  # Hydra has just made it
    Sweep.ran(lambda: main(node, place), finished=bool(node.get("resume")) and (place / RESULT).exists())


def discarded(folder: Path) -> bool:
    """Whether the folder of a multirun held no job, which leaves nothing behind, and nothing to tell."""
    if any(folder.glob(f"*/{CONFIG}")):
        return False
    (folder / "multirun.yaml").unlink(missing_ok=True)  # Hydra's
    with contextlib.suppress(OSError):  # not made yet, or the user's files lie there
        folder.rmdir()
    return True


def same_run(node: Mapping[str, Any], folder: Path) -> Path:
    """The folder beside this one that holds the finished run of this configuration, else this one."""
    if any(folder.iterdir()):
        return folder
    own = config_digest(node)
    results = (path for path in sorted(folder.parent.glob(f"*/{RESULT}")))
    return next((path.parent for path in results if (read_object(path) or {}).get("config_digest") == own), folder)


def progress(number: int, total: int, before: int, seconds: Sequence[float]) -> str:
    """'run 3 of 6, about 12 min left', from what the jobs of this call have taken so far."""
    text = f"run {number} of {total}"
    if not seconds:
        return text
    return f"{text}, about {spelled(fmean(seconds) * max(1, total - number + 1 - max(0, before)))} left"


def spelled(seconds: float) -> str:
    """40 s, 12 min, 2.5 h."""
    if seconds < 2 * MINUTE:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / MINUTE:.0f} min" if seconds < 2 * HOUR else f"{seconds / HOUR:.1f} h"


def number_of_jobs(arguments: Sequence[str]) -> int | None:
    """How many combinations these overrides have; None where only Hydra knows, as of model=glob(*)."""
    try:
        (jobs,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(list(arguments)), None)
    except HydraException:
        return None
    return len(jobs)


def fixed_keys(arguments: Sequence[str]) -> list[str]:
    """The keys that have one value in all jobs, and those that stand in every name."""
    overrides = OverridesParser.create().parse_overrides(list(arguments))
    varying = {one.key_or_group for one in overrides if one.is_sweep_override()}
    return [*ALWAYS, *sorted({one.key_or_group for one in overrides} - varying - set(ALWAYS))]


def without(keys: Sequence[str]) -> str:
    """What tells Hydra which keys to leave out of hydra.job.override_dirname."""
    return f"hydra.job.config.override_dirname.exclude_keys=[{','.join(repr(key) for key in keys)}]"


def folder_name(what: str, varying: str) -> str:
    """The name of a job's folder: what it is, and its other overrides that vary. A resolver of the configuration.

    Safe on every file system and unquoted in a shell; a name that had to be changed or cut ends in a digest of the
    whole, as does one with capitals, which some file systems do not tell from small letters.
    """
    whole = f"{what}_{varying}" if varying else what
    if SAFE.fullmatch(whole) and len(whole) <= LONGEST:
        return whole
    readable = re.sub(r"[^A-Za-z0-9.]+", lambda found: found[0] if found[0] in ("_", "-", "__") else "-", whole)
    return f"{readable[: LONGEST - DIGITS - 1].strip('-._')}-{digest(whole)[:DIGITS]}"


def register() -> None:
    """Let YAML say ${folder_name:...}. Twice is once."""
    OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)


def refuse_misplaced(overrides: Sequence[str], *, multirun: bool) -> None:
    """UserError for the folder of one run in a multirun and the reverse: Hydra ignores it in silence."""
    keys = [override.partition("=")[0].lstrip("+") for override in overrides]
    multirun |= any(override.replace("'", "").upper().endswith("HYDRA.MODE=MULTIRUN") for override in overrides)
    if multirun and "hydra.run.dir" in keys:
        raise UserError(
            "hydra.run.dir is the folder of one run, and -m makes many: give hydra.sweep.dir=FOLDER. Each run gets a "
            "subfolder there, named by what it is, and resume=true goes on with what is there"
        )
    if not multirun and "hydra.sweep.dir" in keys:
        raise UserError(
            "hydra.sweep.dir is the folder of many runs, and this call makes one: add -m, or give hydra.run.dir=FOLDER"
        )
