"""Start a Hydra command: one `hydra.main` for each, with its own root YAML, and Hydra's errors in one line.

`compose` gives the same configuration to a call from Python. Nothing below asks Hydra for anything.

A plain switch in front of `hydra.main` keeps multirun, sweepers, launchers, --cfg, --config-dir and completion as
Hydra's users know them.
"""

import argparse
import contextlib
import importlib
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser  # what hydra.main reads sys.argv with
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fieldctr.catalog import conf_dir, groups, options, refuse_absent
from fieldctr.commands.hydra_guard import NESTED, install, without_hydra
from fieldctr.commands.mistakes import Call, hydra_apart, search_path, translate
from fieldctr.commands.spelling import refuse_spelling
from fieldctr.commands.study_words import own_words
from fieldctr.commands.sweep_table import sweep_table
from fieldctr.commands.sweeps import Sweep, discarded, refuse_misplaced, run_job
from fieldctr.commands.types import refuse_values
from fieldctr.commands.words import HYDRA, PARTS
from fieldctr.errors import UserError, unknown
from fieldctr.launched import refuse_many
from fieldctr.signals import Interrupted, check
from fieldctr.trust import FLAG, take_trust

NUMBER = re.compile(r"[-+]?[\d.][\d._e+-]*")  # what YAML could take for one
NAMES_MODELS = ("train", "bench_train", "study", "search")
MANY_RUNS = ("study", "search")  # their runs get the keys of `train` in the call, and the folder of the user's YAML
CHOICES = "choices"  # key of their configuration
TUNED = "tuned"  # the group of searched settings, which Hydra takes where there are any
LEAVES_A_FOLDER = ("train", "scaling")  # where Hydra says
FLAGS_WITH_VALUE = (
    *("--cfg", "-c", "--package", "-p", "--config-name", "-cn", "--config-dir", "-cd", "--config-path", "-cp"),
    *("--info", "-i", "--experimental-rerun"),
)


def launch(command: str, arguments: tuple[str, ...]) -> None:
    """Compose the command's configuration and run it, once or for every combination of a multirun."""
    refuse_spelling(arguments, get_args_parser()._option_string_actions, FLAGS_WITH_VALUE)
    install()
    refuse_absent(folder_in(arguments))
    refuse_what_hydra_would_not(arguments, folder_in(arguments))
    if command in MANY_RUNS:
        arguments = tuple(own_words(command, arguments))
    show_all = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints and exits by itself
    warnings.showwarning = _say  # ty: ignore[invalid-assignment]
    sys.argv = [f"fieldctr {command.replace('_', ' ')}", *flags_first(tuple(map(quoted_option, arguments)))]
    call = get_args_parser().parse_args(sys.argv[1:])
    refuse_flags(call)
    if call.multirun and command in MANY_RUNS:
        raise UserError(f"a {command} is a sweep of its own: leave out -m")
    if call.multirun:
        refuse_many("-m")
    refuse_misplaced(call.overrides, multirun=call.multirun)
    refused: list[Exception] = []
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=command)(task(command, refused))()
    except (HydraException, OmegaConfBaseException) as error:
        if show_all:
            raise
        raise UserError(translate(error, command, Call(call.overrides, call.config_dir, call.config_name))) from error
    except Interrupted as stop:
        if Sweep.folder:
            stop.kept = stop.kept or "; its jobs so far are kept"
            stop.go_on = {"hydra.sweep.dir": str(Sweep.folder), "resume": "true"}
        raise
    finally:
        if Sweep.folder and not discarded(Sweep.folder):
            print(sweep_table(Sweep.folder))
    if refused:
        raise refused[0]


def task(command: str, refused: list[Exception]) -> Callable[[DictConfig], None]:
    """What Hydra calls with the composed configuration. The command is imported only then: typos cost no torch."""

    def run(config: DictConfig) -> None:
        check()  # a job that failed as a signal came was taken for any other
        try:
            own = own_folder()
            node = with_choices(resolved(config, command), HydraConfig.get().runtime.choices, command, own)
            node |= {"config_dir": own} if command in MANY_RUNS else {}
            refuse_values(node, command)  # before torch is imported
            main = importlib.import_module(f"fieldctr.commands.{command}").main
            if command not in LEAVES_A_FOLDER:
                main(node)
            elif HydraConfig.get().mode == RunMode.MULTIRUN:
                run_job(main, node, run_folder())
            else:
                main(node, run_folder())
        except (UserError, OSError, MemoryError) as error:
            if command in LEAVES_A_FOLDER:
                with contextlib.suppress(OSError):  # Hydra made it before it called this; a typo leaves none behind
                    run_folder().rmdir()
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise  # Hydra goes on with the other jobs and raises the first error at the end
            refused.append(error)  # Hydra would put a line of its own before the message

    return run


def compose(
    command: str,
    overrides: Iterable[str] = (),
    *,
    config_dir: str | Path | None = None,
    trust: str | Iterable[str] = (),
) -> dict[str, Any]:
    """The configuration that `fieldctr COMMAND OVERRIDES...` would run with, as plain values.

    `config_dir` is the folder of your own YAML, `trust` the packages whose code it may name: they stay trusted in this
    process. The names that were chosen stand in the key `choices`. A mistake is a UserError of one sentence.
    """
    commands = sorted({*HYDRA, *(f"{first} {part}" for first, parts in PARTS.items() for part in parts)} - {"bench"})
    if command not in commands:
        raise UserError(unknown("command to compose for", command, tuple(commands)))
    given = overrides if isinstance(overrides, str) else [*overrides]
    if isinstance(given, str) or not all(isinstance(word, str) for word in given):
        raise UserError(f"compose({command!r}, {given!r}): expected a list of texts KEY=VALUE")
    packages = [trust] if isinstance(trust, str) else [*trust]
    words = [quoted_option(word) for word in take_trust([*given, *(f"{FLAG}{name}" for name in packages)])]
    refuse_what_hydra_would_not(words, config_dir)
    if command in MANY_RUNS:
        words = own_words(command, words)
    for word in words:
        if word.startswith("-") or word.lstrip("+~").startswith("hydra"):
            raise UserError(f"{word} belongs to the command line. From Python the folder is train(..., folder=...)")
    if config_dir is not None and not Path(config_dir).is_dir():
        raise UserError(f"config_dir={config_dir}: no such folder")
    node = _composed(command.replace(" ", "_"), Call(words, None if config_dir is None else str(config_dir)))
    return node | ({"config_dir": str(config_dir)} if command in MANY_RUNS and config_dir is not None else {})


def _composed(command: str, call: Call) -> dict[str, Any]:
    install()
    folder = [search_path(call.config_dir)] if call.config_dir else []
    current = HydraConfig.instance()
    before = current.cfg
    try:
        with hydra_apart():
            config = hydra.compose(command, [*call.overrides, *folder], return_hydra_config=True)
            current.set_config(config)  # for ${hydra:...}
            own = resolved(without_hydra(config), command)
            return with_choices(own, config.hydra.runtime.choices, command, call.config_dir)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(translate(error, command, call)) from error
    finally:
        current.cfg = before


def resolved(config: DictConfig, command: str) -> dict[str, Any]:
    """The configuration as plain mappings, its interpolations written out."""
    try:
        node: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except RecursionError as error:
        raise UserError(NESTED) from error
    except OmegaConfBaseException as error:
        raise UserError(translate(error, command)) from error
    return node


def _say(message: Warning | str, *_: object) -> None:
    print(f"fieldctr: {message}", file=sys.stderr)


def run_folder() -> Path:
    """hydra.run.dir of this job, or its folder in a multirun."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def own_folder() -> str | None:
    """The folder that --config-dir named, if it did."""
    sources = HydraConfig.get().runtime.config_sources
    return next((source.path for source in sources if source.provider == "command-line"), None)


def with_choices(
    node: dict[str, Any], choices: Mapping[str, Any], command: str, own: str | None = None
) -> dict[str, Any]:
    """The node with the names of the options that were taken, for a command that names models in what it says.

    `own` is the folder of the user's own YAML. Hydra names an optional option also where there is none.
    """
    if command not in NAMES_MODELS:
        return node
    taken = {group: option for group, option in choices.items() if not str(group).startswith("hydra/")}
    if taken.get(TUNED, "none") not in options(TUNED, own):
        taken[TUNED] = "none"
    return node | {CHOICES: taken}


def flags_first(arguments: tuple[str, ...]) -> list[str]:
    """Hydra's parser refuses a flag between overrides (`a=1 -m b=2`): move flags, with their values, to the front."""
    flags, overrides, takes_value = [], [], False
    for argument in arguments:
        is_value = takes_value and not argument.startswith("-") and "=" not in argument
        (flags if is_value or argument.startswith("-") else overrides).append(argument)
        takes_value = argument in FLAGS_WITH_VALUE
    return flags + overrides


def quoted_option(argument: str) -> str:
    """`dataset=2024` names a YAML file: unquoted, Hydra reads a number, and raises a bare ValueError."""
    group, equals, options = argument.partition("=")
    if not equals or group.lstrip("+") not in groups():
        return argument
    parts = (f"'{part}'" if NUMBER.fullmatch(part) else part for part in options.split(","))
    return f"{group}={','.join(parts)}"


def refuse_flags(call: argparse.Namespace) -> None:
    """Hydra would read a pickle, and raises a bare ValueError for flags that do not go together."""
    if call.experimental_rerun:
        raise UserError("--experimental-rerun reads a pickle, which can run code: give the keys of that run instead")
    modes = {"--run": call.run, "--multirun": call.multirun, "--cfg": call.cfg, "--info": call.info}
    given = [flag for flag, value in modes.items() if value]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} do not go together: give one")
    if call.resolve and not (call.cfg or call.help):
        raise UserError("--resolve goes with --cfg job, which prints the configuration")


def folder_in(arguments: Iterable[str]) -> str | None:
    """The folder of the user's own YAML in a call, as --config-dir names it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-dir", "-cd")
    return parser.parse_known_args(list(arguments))[0].config_dir


def refuse_what_hydra_would_not(arguments: Iterable[str], own: str | Path | None = None) -> None:
    """`enhancer=null` raises a bare ValueError in Hydra; a misspelt option of the optional group passes for none."""
    for argument in arguments:
        group, equals, option = argument.partition("=")
        if equals and group in groups() and option in ("", "null"):
            raise UserError(f"{argument}: a group is chosen by name. All: {', '.join(options(group, own))}")
        if group == TUNED and option not in options(group, own):
            raise UserError(unknown(group, option, tuple(options(group, own))))
