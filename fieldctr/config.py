"""From YAML to typed objects: the closed nodes as frozen dataclasses, and the two functions that read a node.

YAML is the only place where a value is set, a dataclass the only place where its type and range are stated.
"""

import difflib
import importlib
import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from fieldctr.errors import UserError

T = TypeVar("T")


def _range(low: float, high: float = float("inf")) -> Any:
    """A dataclass field whose numbers must lie in [low, high]."""
    return field(metadata={"range": (low, high)})


@dataclass(frozen=True)
class TrainerConfig:
    """How a model is fitted. Node `trainer`."""

    max_epochs: int = _range(1)
    batch_size: int = _range(1)
    eval_batch_size: int = _range(1)
    evals_per_epoch: int = _range(1)
    monitor: Literal["auc", "logloss", "auc-logloss"]  # on the validation split
    patience: int = _range(1)  # evaluations in a row without a gain before the run stops
    min_delta: float = _range(0)  # what counts as a gain
    lr_decay: float = _range(0, 1)  # factor at each evaluation without a gain
    min_lr: float = _range(0)
    clip_norm: float | None = _range(0)
    ema_decay: float | None = _range(0, 1)  # per step; null trains and evaluates the raw weights
    precision: Literal["fp32", "tf32", "bf16"]
    compile: bool
    deterministic: bool
    checkpoint_every_s: float = _range(0)  # besides the one at each evaluation
    extra_metrics: list[str]  # import paths of torchmetrics classes, computed on the whole split


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam with coupled L2 (LLaCTR's code; papers.md A9). Node `optimizer`."""

    lr: float = _range(0)
    beta1: float = _range(0, 1)
    beta2: float = _range(0, 1)
    eps: float = _range(0)
    embedding_l2: float = _range(0)
    dense_l2: float = _range(0)
    embedding_update: Literal["dense", "lazy"]  # lazy: the same Adam, computed only for rows that a batch touches


@dataclass(frozen=True)
class RuntimeConfig:
    """The machine. Node `runtime`."""

    device: str  # auto | cpu | cuda | cuda:N
    threads: int | Literal["auto"]
    matmul: Literal["auto", "mkl", "onednn"]


@dataclass(frozen=True)
class TrackerConfig:
    """Where metrics are mirrored; metrics.jsonl is always written. Node `tracker`."""

    name: Literal["none", "wandb", "tensorboard"]
    project: str
    mode: Literal["offline", "online"]
    group: str | None
    tags: list[str]


def nearest(word: str, known: Iterable[str]) -> str:
    """'Nearest: a, b. ' for an error message, or '' when nothing is near."""
    close = difflib.get_close_matches(word, list(known), n=3, cutoff=0.5)
    return f"Nearest: {', '.join(close)}. " if close else ""


def parse(kind: type[T], node: Mapping[str, Any], name: str) -> T:
    """The frozen dataclass `kind` from a plain mapping; a UserError names the key, what is expected and what came."""
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    hints = get_type_hints(kind)
    for key in node:
        if key not in known:
            raise UserError(f"no key '{name}.{key}'. {nearest(key, known)}All: {', '.join(known)}")
    for key in known:
        if key not in node:
            raise UserError(f"key '{name}.{key}' is missing: set it to a {_spell(hints[key])}")
    return kind(**{key: _checked(node[key], hints[key], spec.metadata, f"{name}.{key}") for key, spec in known.items()})


def build(node: Mapping[str, Any], name: str, *runtime: Any) -> Any:
    """Call the node's `_target_` with `runtime` and then the node's other keys; a stray or missing key is named."""
    target, keywords = locate(node, name), {key: value for key, value in node.items() if key != "_target_"}
    known = [p.name for p in inspect.signature(target).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for key in keywords:
        if key not in known:
            raise UserError(f"no key '{name}.{key}'. {nearest(key, known)}All: {', '.join(known) or 'none'}")
    for p in inspect.signature(target).parameters.values():
        if p.kind is p.KEYWORD_ONLY and p.default is p.empty and p.name not in keywords:
            raise UserError(f"key '{name}.{p.name}' is missing: {node['_target_']} needs it")
    return target(*runtime, **keywords)


def locate(node: Mapping[str, Any], name: str) -> Callable[..., Any]:
    """The class or function that the node's `_target_` names. Any installed package may be named."""
    if not isinstance(node.get("_target_"), str):
        raise UserError(
            f"'{name}' has no _target_: the import path of the class to build, such as fieldctr.models.fm.FM"
        )
    module, _, attribute = node["_target_"].rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{name}._target_={node['_target_']} cannot be imported: {error}") from error


def _checked(value: Any, hint: Any, metadata: Mapping[str, Any], key: str) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and _accepts(1.0, hint) and not _accepts(value, hint):
        value = float(value)  # YAML writes 1 for 1.0
    if not _accepts(value, hint):
        raise UserError(f"{key}={value} is not allowed: expected {_spell(hint)}")
    low, high = metadata.get("range", (None, None))
    if low is not None and isinstance(value, int | float) and not low <= value <= high:
        raise UserError(f"{key}={value} is out of range: expected {low} to {high}")
    return value


def _accepts(value: Any, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        return any(_accepts(value, option) for option in get_args(hint))
    if get_origin(hint) is list:
        return isinstance(value, list) and all(_accepts(item, get_args(hint)[0]) for item in value)
    return isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool)


def _spell(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " | ".join(map(str, get_args(hint)))
    if get_origin(hint) in (Union, types.UnionType):
        return " | ".join(map(_spell, get_args(hint)))
    if get_origin(hint) is list:
        return f"list of {_spell(get_args(hint)[0])}"
    return {type(None): "null"}.get(hint, getattr(hint, "__name__", str(hint)))
