"""What Hydra or OmegaConf found wrong, in a sentence: the key, the nearest valid ones, what is allowed."""

import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from fieldctr.catalog import conf_dir, groups, options, plural
from fieldctr.commands.hydra_guard import NESTED
from fieldctr.config import flat
from fieldctr.errors import UserError, nearest


class Call(NamedTuple):
    """What a configuration is composed of besides the files of the package."""

    overrides: Sequence[str] = ()
    config_dir: str | None = None
    config_name: str | None = None


@contextmanager
def hydra_apart() -> Generator[None]:
    """Inside, Hydra's functions compose fieldctr's configuration; what else uses Hydra in this process is put back."""
    state = GlobalHydra.instance()
    before = state.hydra
    state.clear()
    try:
        with hydra.initialize_config_dir(str(conf_dir()), job_name="fieldctr", version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = before


def search_path(config_dir: str) -> str:
    """The override that does what --config-dir does."""
    path = str(Path(config_dir).absolute()).replace("'", "\\'")
    return f"hydra.searchpath=['file://{path}']"


def translate(error: Exception, command: str, call: Call | None = None) -> str:
    """One or two lines for what went wrong as this call was composed."""
    causes = _causes(error)
    for cause in causes:
        if isinstance(cause, UserError | RecursionError):
            return str(cause) if isinstance(cause, UserError) else NESTED
        if isinstance(cause, OverrideParseException):
            reason = str(cause).splitlines()[-2].strip()
            return f"cannot read '{cause.override}': {reason}. Expected KEY=VALUE, with quotes around blanks and commas"
        if isinstance(cause, MissingConfigException) and cause.missing_cfg_file:
            return _no_option(cause, f" --config-dir {call.config_dir}" if call and call.config_dir else "")
        if isinstance(cause, MissingMandatoryValue):
            return f"{command} needs a value for '{cause.full_key}': give {cause.full_key}=..."
    if match := re.match(r"(?:Ambiguous value for argument|Sweep parameters) '(.+?)'(?: requires|$)", str(error), re.M):
        return several_values(match[1], command)
    return _in_few_words(error, causes, command, call)


def _in_few_words(error: Exception, causes: list[BaseException], command: str, call: Call | None) -> str:
    """A key that there is not, with the nearest ones; of anything else what Hydra says first."""
    match = re.search(r"Could not (?:override|delete from config\.) '([^']+)'", str(error))
    key = next((cause.full_key for cause in causes if isinstance(cause, OmegaConfBaseException) and cause.full_key), "")
    if match and not str(error).startswith("In '"):  # else it stands in the defaults of a file
        known = _keys(command, call or Call())
        return _no_part(match[1], key, known) if key.rpartition(".")[0] == match[1] else _no_key(match[1], known)
    lines = (line.strip() for cause in causes for line in str(cause).splitlines())
    told = dict.fromkeys(line for line in lines if line and not line.startswith(("full_key:", "object_type=")))
    text = " ".join([*told][:2])
    return f"{key}: {text}" if key and key not in (*text.split(), "_dummy_") else text


def several_values(argument: str, command: str) -> str:
    """What to write for model=lr,fm in a call that runs once."""
    key, _, value = argument.partition("=")
    a_list = "" if key in groups() or "(" in value else f", or {key}=[{value}] if one list is meant"
    call = f"fieldctr {command.replace('_', ' ')} -m {argument}"
    return f"{argument} has several values. For a run of each add -m: {call}{a_list}"


def _causes(error: BaseException) -> list[BaseException]:
    chain = [error]
    while cause := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(cause)
    return chain


def _no_option(error: MissingConfigException, own: str) -> str:
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    known = sorted(error.options or ())
    hint = f"All: fieldctr list {plural(group)}{own}" if group in groups() else f"All: {', '.join(known)}"
    return f"no {group or 'configuration'} '{option.removesuffix('.yaml')}'. {nearest(option, known)}{hint}"


def _no_key(key: str, known: Sequence[str]) -> str:
    parent = key.rpartition(".")[0]
    siblings = [name for name in known if name.rpartition(".")[0] == parent] or [n for n in known if "." not in n]
    last = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]  # `lr` for optimizer.lr
    hint = nearest(key, known) or (f"Did you mean {last[0]}? " if last else "")
    return f"no key '{key}'. {hint}All: {', '.join(siblings)}"


def _no_part(node: str, key: str, known: Sequence[str]) -> str:
    """For a node given as {key: value}, one of whose keys it lacks."""
    siblings = [name for name in known if name.rpartition(".")[0] == node]
    return f"no key '{key}'. All: {', '.join(siblings)}. Add it with +{key}=..., take one away with ~"


def _keys(command: str, call: Call) -> list[str]:
    """All keys of the command's configuration, nodes and leaves, with the groups and the folder of this call."""
    entries: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / f"{command}.yaml"), resolve=False)
    own = {key for entry in entries["defaults"] if isinstance(entry, dict) for key in entry}
    folders = [search_path(call.config_dir)] if call.config_dir else []
    folders += [word for word in call.overrides if word.startswith("hydra.searchpath=")][-1:]
    words = [word for word in call.overrides if not word.startswith("hydra.")]
    chosen = []
    for override in OverridesParser.create().parse_overrides(words):
        option = _first_option(override, call.config_dir)
        if option and (override.is_add() or override.key_or_group in own):
            chosen.append(f"{override.key_or_group}='{option}'")
    with hydra_apart():
        try:
            config = hydra.compose(call.config_name or command, [*chosen, *folders])
        except (HydraException, OmegaConfBaseException):  # a choice is wrong as well: the keys without it
            config = hydra.compose(command, folders[-1:])
    node: Any = OmegaConf.to_container(config, resolve=False)
    parts = [leaf.split(".") for leaf in flat(node)]
    return list(dict.fromkeys(".".join(part[:end]) for part in parts for end in range(1, len(part) + 1)))


def _first_option(override: Override, own: str | None) -> str | None:
    """The option that a word chooses of a group; of a sweep's several the first."""
    value = override.value()
    if isinstance(value, ChoiceSweep):
        value = value.list[0]
    if isinstance(value, Glob):
        value = next(iter(value.filter(options(override.key_or_group, own))), None)
    return value if isinstance(value, str) else None
