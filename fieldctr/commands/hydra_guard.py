"""What a configuration file may do to Hydra and OmegaConf: give values. It may not name code, nor fill the memory.

Hydra instantiates its own node (callbacks, launcher, sweeper, logging) as soon as it has composed, and any YAML file
may write to that node. So the composed node is checked inside Hydra's loader, which all calls and each job of a
multirun pass, also in the workers of a launcher. Hydra has no public hook there: `install` replaces private names.
"""

import functools
import inspect
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import hydra._internal.hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.experimental.callback import Callback
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.base import Container, Node
from omegaconf.errors import OmegaConfBaseException

from fieldctr.commands import sweeps
from fieldctr.commands.types import refuse_values
from fieldctr.commands.yaml_files import MAX_VALUES, TOO_MANY, read_yaml
from fieldctr.errors import UserError
from fieldctr.targets import Kind, locate

NESTED = "the configuration is nested too deeply, or a part of it holds itself"


def _kind(base: type, example: str) -> Kind:
    what = f"a {base.__name__.lower()} of Hydra, a class"
    return Kind(what, example, lambda one: inspect.isclass(one) and issubclass(one, base), ("hydra", "hydra_plugins"))


PARTS = {  # of the node `hydra`: what it instantiates
    "callbacks": _kind(Callback, "fieldctr.commands.sweeps.Sweep"),
    "launcher": _kind(Launcher, "hydra._internal.core_plugins.basic_launcher.BasicLauncher"),
    "sweeper": _kind(Sweeper, "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"),
}
LOGGING = ("logging.StreamHandler", "logging.FileHandler", "logging.Formatter")
LOG_FILE = "${hydra.runtime.output_dir}/${hydra.job.name}.log"  # Hydra's default; elsewhere no log may be written
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
INTERPOLATION_COST = 10  # values; one takes 0.2 ms
CHARACTERS_PER_VALUE = 100


class Budget(threading.local):
    """How many values one composition has built. It counts work, not seconds: a busy machine changes nothing."""

    spent = 0

    def spend(self, values: int, what: str) -> None:
        self.spent += values
        if self.spent > MAX_VALUES:
            raise UserError(f"{what}: {TOO_MANY}")


BUDGET = Budget()


class Loader(ConfigLoaderImpl):
    """Hydra's loader of configurations, which counts what they cost and checks what they would run."""

    refusal: UserError | None = None

    def load_configuration(self, *arguments: Any, **keywords: Any) -> DictConfig:
        """What is refused is refused once: Hydra composes first to learn its mode, and ignores what that raises."""
        if self.refusal:
            raise self.refusal
        try:
            return self._checked(*arguments, **keywords)
        except UserError as error:
            if not keywords.get("validate_sweep_overrides", True):
                self.refusal = error
            raise

    def _checked(self, *arguments: Any, **keywords: Any) -> DictConfig:
        install()  # a launcher's worker has unpickled this loader, and done nothing else of fieldctr
        _guard_files(type(source) for source in self.get_sources())
        BUDGET.spent = 0
        try:
            config = super().load_configuration(*arguments, **keywords)
        except RecursionError as error:
            raise UserError(NESTED) from error
        except KeyError as error:
            raise UserError(f"hydra.job.env_copy: the environment has no {error}") from error
        except ValueError as error:  # of a defaults list
            raise UserError(" ".join(str(error).split())) from error
        refuse_code(config.hydra)
        return config

    def load_sweep_config(self, *arguments: Any, **keywords: Any) -> DictConfig:
        """A job of a multirun. Hydra composes all before it begins the first: none runs where a later one is wrong."""
        config = super().load_sweep_config(*arguments, **keywords)
        try:
            node: Any = OmegaConf.to_container(without_hydra(config), resolve=True, throw_on_missing=True)
        except (OmegaConfBaseException, RecursionError):  # told at its turn, when a job knows ${hydra:...} too
            return config
        refuse_values(node, str(config.hydra.job.config_name))
        return config


def without_hydra(config: DictConfig) -> DictConfig:
    """What the command itself is configured with."""
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def load_config(source: ConfigSource, config_path: str) -> ConfigResult:
    """In the place of the method of Hydra's source of YAML files: counts before it builds."""
    path = Path(source.path) / ConfigSource._normalize_file_name(config_path)
    config, text, values = read_yaml(path)
    BUDGET.spend(values, str(path))
    _check_defaults(config, path)
    if OmegaConf.select(config, "hydra.searchpath") is not None:
        raise UserError(f"{path}: hydra.searchpath belongs to the call. Give --config-dir there")
    try:
        header = ConfigSource._get_header_dict(text[:512])
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    return ConfigResult(config=config, path=f"file://{source.path}", provider=source.provider, header=header)


def _check_defaults(config: Any, path: Path) -> None:
    """Hydra has bare assertions for these."""
    if not OmegaConf.is_dict(config):
        raise UserError(f"{path} holds a list: expected a mapping, KEY: VALUE")
    plain: Any = OmegaConf.to_container(config, resolve=False)
    defaults = plain.get("defaults", [])
    for entry in defaults if isinstance(defaults, list) else [defaults]:
        if not isinstance(defaults, list) or not _is_default(entry):
            raise UserError(f"{path}: defaults: {entry} is not allowed: expected a list of entries GROUP: OPTION")


def _is_default(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return isinstance(entry, str)
    (group, options), *more = entry.items() or [(None, None)]
    texts = options if isinstance(options, list) else [options or ""]
    return not more and all(isinstance(text, str) for text in (group, *texts))


def refuse_code(node: DictConfig) -> None:
    """UserError where the composed node `hydra` would run what is not Hydra's, fieldctr's or of a trusted package."""
    callbacks = _plain(node, "callbacks") or {}
    named = {f"callbacks.{name}": value for name, value in callbacks.items()}
    for name, value in (named | {part: _plain(node, part) for part in ("launcher", "sweeper")}).items():
        locate(value if isinstance(value, dict) else {}, f"hydra.{name}", PARTS[name.partition(".")[0]])
        for key, nested in _leaves(value, f"hydra.{name}"):
            if key.endswith("._target_") and key != f"hydra.{name}._target_":
                raise UserError(f"{key}={nested} is refused: one _target_ within another")
    for part in ("job_logging", "hydra_logging"):
        for key, value in _leaves(_plain(node, part, resolve=False), f"hydra.{part}"):
            _refuse_logging(key, value)
    job = node.job
    for name in job.env_set:
        if name not in job.env_copy:
            raise UserError(f"hydra.job.env_set.{name} is refused: set {name} in the shell, before the call")
    if "/" in str(job.get("name", "")):
        raise UserError(f"hydra.job.name={job.name} is not allowed: expected a name without /")
    if not isinstance(node.verbose, bool | str | ListConfig):
        raise UserError(f"hydra.verbose={node.verbose} is not allowed: expected true, false or names of loggers")


def _plain(node: DictConfig, part: str, *, resolve: bool = True) -> Any:
    inner = node[part]
    return OmegaConf.to_container(inner, resolve=resolve) if OmegaConf.is_config(inner) else inner


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inner is None:
        yield key, value
    else:
        for name, each in inner:
            yield from _leaves(each, f"{key}.{name}")


def _refuse_logging(key: str, value: Any) -> None:
    """Python's logging.config calls and imports what it is told to."""
    last, text = key.rpartition(".")[2], str(value)
    code = last == "()" or (last == "class" and value not in LOGGING) or ("://" in text and text not in STREAMS)
    if code or ((last == "filename" or "${" in text) and text != LOG_FILE):
        raise UserError(f"{key}={text} is refused: expected hydra/job_logging=none, stdout or default")


def install() -> None:
    """Put the guard in the place of what Hydra and OmegaConf would use. Twice is once."""
    hydra._internal.hydra.ConfigLoaderImpl = Loader  # ty: ignore[invalid-assignment]
    sweeps.register()
    Plugins.instance()  # it runs the modules of its plugins again: until then the class is another one
    _guard_files([SourcesRegistry.instance().resolve("file")])
    _count(CachingConfigRepository, "load_config", lambda _: INTERPOLATION_COST)
    _count(Container, "_resolve_node_interpolation", _size)
    _count(Container, "_evaluate_custom_resolver", _size)


def _guard_files(sources: Iterable[type[ConfigSource]]) -> None:
    for source in sources:
        if source.scheme() == "file":
            source.load_config = load_config  # ty: ignore[invalid-assignment]


def _count(owner: type, name: str, cost: Callable[[Any], int]) -> None:
    """Let each call of a method spend what its result costs, and the texts that it was given."""
    method = getattr(owner, name)
    if hasattr(method, "__wrapped__"):
        return

    @functools.wraps(method)
    def counted(self: Any, *arguments: Any, **keywords: Any) -> Any:
        texts = [text for text in keywords.get("inter_args", ()) if isinstance(text, str)]
        given = 2 * sum(map(len, texts))  # oc.decode parses it
        BUDGET.spend(INTERPOLATION_COST + given, "the configuration")
        found = method(self, *arguments, **keywords)
        BUDGET.spend(cost(found), "the configuration")
        return found

    setattr(owner, name, counted)


def _size(found: Any) -> int:
    """How many values were put in the place of an interpolation; no more are counted than the budget has."""
    waiting, size = [found], 0
    while waiting and size <= MAX_VALUES:
        value = waiting.pop()
        inner = value._value() if isinstance(value, Node) else value
        size += 1 + (len(inner) // CHARACTERS_PER_VALUE if isinstance(inner, str) else 0)
        if isinstance(inner, dict | list):
            waiting += inner.values() if isinstance(inner, dict) else inner
    return size
