"""Start a Hydra command: one `hydra.main` for each, with its own root YAML, and Hydra's errors in one line.

A plain switch in front of `hydra.main` keeps multirun, sweepers, launchers, --cfg, --config-dir and completion as
Hydra's users know them.
"""

import argparse
import importlib
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser  # what hydra.main reads sys.argv with
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from fieldctr.catalog import conf_dir, groups, options
from fieldctr.commands.hydra_guard import NESTED, install
from fieldctr.config import flat
from fieldctr.errors import UserError, nearest, unknown
from fieldctr.runs import sweep_table
from fieldctr.signals import Interrupted, check
from fieldctr.trust import FLAG

NUMBER = re.compile(r"[-+]?[\d.][\d._e+-]*")  # what YAML could take for one
FLAGS_WITH_VALUE = (
    *("--cfg", "-c", "--package", "-p", "--config-name", "-cn", "--config-dir", "-cd", "--config-path", "-cp"),
    *("--info", "-i", "--experimental-rerun"),
)


def launch(command: str, arguments: tuple[str, ...]) -> None:
    """Compose the command's configuration and run it, once or for every combination of a multirun."""
    install()
    refuse_what_hydra_would_not(arguments)
    show_all = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints and exits by itself
    warnings.showwarning = _say  # ty: ignore[invalid-assignment]
    sys.argv = [f"fieldctr {command.replace('_', ' ')}", *flags_first(tuple(map(quoted_option, arguments)))]
    refuse_flags(get_args_parser().parse_args(sys.argv[1:]))
    refused: list[Exception] = []
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=command)(task(command, refused))()
    except (HydraException, OmegaConfBaseException) as error:
        if show_all:
            raise
        raise UserError(translate(error, command)) from error
    except Interrupted as stop:
        if Sweep.folder:
            stop.kept = stop.kept or "; its jobs so far are kept"
            stop.go_on = {"hydra.sweep.dir": str(Sweep.folder), "resume": "true"}
        raise
    finally:
        if Sweep.folder:
            print(sweep_table(Sweep.folder))
    if refused:
        raise refused[0]
    if Then.failed:
        raise UserError(Then.failed)


def task(command: str, refused: list[Exception]) -> Callable[[DictConfig], None]:
    """What Hydra calls with the composed configuration. The command is imported only then: typos cost no torch."""

    def run(config: DictConfig) -> None:
        check()  # a job that failed as a signal came was taken for any other
        try:
            node = resolved(config, command)
            importlib.import_module(f"fieldctr.commands.{command}").main(node)
        except (UserError, OSError, MemoryError) as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise  # Hydra goes on with the other jobs and raises the first error at the end
            refused.append(error)  # Hydra would put a line of its own before the message

    return run


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


def choice(group: str) -> str:
    """The option that this job took of a config group: model=fat gives fat."""
    return HydraConfig.get().runtime.choices[group]


class Sweep(Callback):
    """Remembers the folder of a multirun: its table is printed even when a job fails, and Hydra then calls no hook."""

    folder: Path | None = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        type(self).folder = Path(config.hydra.sweep.dir)


class Then(Callback):
    """Runs another command on a multirun's runs when all its jobs are done; Hydra calls nothing after a failed one."""

    failed: str | None = None  # what to say at the end: Hydra would swallow an exception

    def __init__(self, command: list[str]) -> None:
        self.command = list(map(str, command))
        for word in self.command:
            if word.startswith(("-", FLAG)):  # the words come from a file, and those belong to the user's own call
                raise UserError(f"a callback's command may not give {word}: {' '.join(self.command)}")

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        words = [*self.command, f"runs={config.hydra.sweep.dir}"]
        plain = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
        if subprocess.run([sys.executable, "-m", "fieldctr", *words], check=False, env=plain).returncode:
            type(self).failed = f"the runs are done, but this was not: fieldctr {' '.join(words)}"


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


def refuse_what_hydra_would_not(arguments: tuple[str, ...]) -> None:
    """`enhancer=null` raises a bare ValueError in Hydra; a misspelt option of the optional group passes for none."""
    for argument in arguments:
        group, equals, option = argument.partition("=")
        if equals and group in groups() and option in ("", "null"):
            raise UserError(f"{argument}: a group is chosen by name. All: {', '.join(options(group))}")
        if group in ("tuned", "arm") and option not in options(group):
            raise UserError(unknown(group, option, tuple(options(group))))


def translate(error: Exception, command: str) -> str:
    """One or two lines for what Hydra or OmegaConf found wrong: the key, the nearest valid ones, what is allowed."""
    causes = _causes(error)
    for cause in causes:
        if isinstance(cause, UserError | RecursionError):
            return str(cause) if isinstance(cause, UserError) else NESTED
        if isinstance(cause, OverrideParseException):
            reason = str(cause).splitlines()[-2].strip()
            return f"cannot read '{cause.override}': {reason}. Expected KEY=VALUE, with quotes around blanks and commas"
        if isinstance(cause, MissingConfigException) and cause.missing_cfg_file:
            return _no_option(cause)
        if isinstance(cause, MissingMandatoryValue):
            return f"{command} needs a value for '{cause.full_key}': give {cause.full_key}=..."
    match = re.search(r"Could not (?:override|delete from config\.) '([^']+)'", str(error))
    key = next((cause.full_key for cause in causes if isinstance(cause, OmegaConfBaseException) and cause.full_key), "")
    if match and not str(error).startswith("In '"):  # else it stands in the defaults of a file
        return _no_part(match[1], key, command) if key.rpartition(".")[0] == match[1] else _no_key(match[1], command)
    lines = (line.strip() for cause in causes for line in str(cause).splitlines())
    told = dict.fromkeys(line for line in lines if line and not line.startswith(("full_key:", "object_type=")))
    text = " ".join([*told][:2])
    return f"{key}: {text}" if key and key not in (*text.split(), "_dummy_") else text


def _causes(error: BaseException) -> list[BaseException]:
    chain = [error]
    while cause := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(cause)
    return chain


def _no_option(error: MissingConfigException) -> str:
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    known = sorted(error.options or ())
    hint = f"All: fieldctr list {group}s" if group in groups() else f"All: {', '.join(known)}"
    return f"no {group or 'configuration'} '{option.removesuffix('.yaml')}'. {nearest(option, known)}{hint}"


def _no_key(key: str, command: str) -> str:
    known = _keys(command)
    parent = key.rpartition(".")[0]
    siblings = [name for name in known if name.rpartition(".")[0] == parent] or [n for n in known if "." not in n]
    last = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]  # `lr` for optimizer.lr
    hint = nearest(key, known) or (f"Did you mean {last[0]}? " if last else "")
    return f"no key '{key}'. {hint}All: {', '.join(siblings)}"


def _no_part(node: str, key: str, command: str) -> str:
    """For a node given as {key: value}, one of whose keys it lacks."""
    siblings = [name for name in _keys(command) if name.rpartition(".")[0] == node]
    return f"no key '{key}'. All: {', '.join(siblings)}. Add it with +{key}=..., take one away with ~"


def _keys(command: str) -> list[str]:
    """All keys of the command's configuration, nodes and leaves, with the groups and the folder of this call."""
    call = get_args_parser().parse_args(sys.argv[1:])
    entries: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / f"{command}.yaml"), resolve=False)
    own = {key for entry in entries["defaults"] if isinstance(entry, dict) for key in entry}
    chosen = []
    for group, _, names in (word.partition("=") for word in call.overrides):
        if (group in own or group[:1] == "+") and names[:1] not in ("{", "["):
            chosen.append(f"{group}={names.split(',')[0]}")
    if call.config_dir:
        chosen.append(f"hydra.searchpath=['file://{Path(call.config_dir).absolute()}']")
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose(call.config_name or command, chosen)
    node: Any = OmegaConf.to_container(config, resolve=False)
    parts = [leaf.split(".") for leaf in flat(node)]
    return list(dict.fromkeys(".".join(part[:end]) for part in parts for end in range(1, len(part) + 1)))
