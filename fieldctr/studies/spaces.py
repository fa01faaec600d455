"""A search space: for each key of the configuration what a search may set it to.

model.pooling: [sum, flat]                          one of a list
model.dropout: {range: [0.0, 0.5]}                  uniform; of whole numbers where both ends are
optimizer.lr: {log: [3.0e-4, 1.0e-2]}               uniform in the logarithm
model.num_layers: {range: [1, 3], step: 1}          with a step, which a grid needs
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from fieldctr.errors import UserError, unknown

KEY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
EDGE = 0.05  # of a range, at either end
DIGITS = 3  # significant ones of a drawn number: what a person reads and types again
EXPECTED = "a list of values, {range: [low, high]} or {log: [low, high]}"

Space = dict[str, BaseDistribution]
Settings = dict[str, Any]  # values by dotted key


def load_space(name: str, folders: list[Path]) -> Space:
    """The space of `space/<name>.yaml` in the first of the configuration folders that has it; UserError if none has.

    A file may name another space instead: `fat`.
    """
    paths = [folder / "space" / f"{name}.yaml" for folder in folders]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        known = sorted({found.stem for folder in folders for found in (folder / "space").glob("*.yaml")})
        cure = f"Write space/{name}.yaml in the folder of your own YAML, or take settings=defaults in a study"
        raise UserError(f"{unknown('search space', name, known)}. {cure}")
    try:
        node = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if isinstance(node, str) and node != name:
        return load_space(node, folders)
    return read_space(node, str(path))


def read_space(node: Any, origin: str) -> Space:
    """The distributions of a mapping from keys to what they may be; a UserError names `origin` where it is none."""
    if not isinstance(node, Mapping) or not node:
        raise UserError(f"{origin}: expected a mapping from keys such as optimizer.lr to {EXPECTED}, got {node!r}")
    for key in node:
        if not isinstance(key, str) or not KEY.fullmatch(key):
            raise UserError(f"{origin}: {key!r} is no key of the configuration, such as optimizer.lr")
    return {key: _distribution(value, f"{origin}: {key}") for key, value in node.items()}


def _distribution(value: Any, key: str) -> BaseDistribution:
    if isinstance(value, list) and value:
        texts = [json.dumps(one, sort_keys=True) for one in value]
        if len(set(texts)) < len(texts):
            raise UserError(f"{key}: {value} names a value twice")
        return CategoricalDistribution(texts)
    if not isinstance(value, Mapping) or len(kinds := value.keys() & {"range", "log"}) != 1:
        raise UserError(f"{key}: expected {EXPECTED}, got {value!r}")
    (kind,) = kinds
    for other in value.keys() - {kind, "step"}:
        raise UserError(f"{key}: {unknown('key', str(other), ('range', 'log', 'step'))}")
    ends, step = value[kind], value.get("step")
    numbers = [ends[0], ends[1], *([] if step is None else [step])] if isinstance(ends, list) and len(ends) == 2 else []
    if not numbers or not all(isinstance(one, int | float) and not isinstance(one, bool) for one in numbers):
        raise UserError(f"{key}: expected {kind}: [low, high] of numbers, got {value!r}")
    low, high = ends
    if not low < high or (kind == "log" and low <= 0) or (step is not None and (step <= 0 or kind == "log")):
        raise UserError(
            f"{key}: expected low < high, above 0 for log, and a step above 0 for range alone, got {value!r}"
        )
    if all(isinstance(one, int) for one in numbers):
        return IntDistribution(low, high, log=kind == "log", step=step or 1)
    return FloatDistribution(float(low), float(high), log=kind == "log", step=step)


def decoded(parameters: Mapping[str, Any], space: Space) -> Settings:
    """What optuna drew, as values of the configuration: lists again, numbers of few digits."""
    return {key: _value(parameters[key], kind) for key, kind in space.items()}


def _value(drawn: Any, kind: BaseDistribution) -> Any:
    if isinstance(kind, CategoricalDistribution):
        return json.loads(drawn)
    return float(f"{drawn:.{DIGITS}g}") if isinstance(kind, FloatDistribution) else drawn


def encoded(settings: Mapping[str, Any], space: Space) -> dict[str, Any] | None:
    """The values of the space's keys as optuna holds them; None where one is missing or outside the space."""
    found = {}
    for key, kind in space.items():
        if key not in settings:
            return None
        value = settings[key]
        if isinstance(kind, CategoricalDistribution):
            value = json.dumps(value, sort_keys=True)
            inside = value in kind.choices
        else:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            inside = number and _lies_in(float(value), kind)
        if not inside:
            return None
        found[key] = value
    return found


def _lies_in(value: float, kind: BaseDistribution) -> bool:
    low, high, step = kind.low, kind.high, kind.step  # ty: ignore[missing-attribute]
    steps = 0.0 if step is None else (value - low) / step
    return low <= value <= high and math.isclose(steps, round(steps), abs_tol=1e-9)


def at_edge(settings: Mapping[str, Any], space: Space) -> list[str]:
    """The keys whose value lies at an end of its range, with the range: better ones may lie beyond."""
    found = []
    for key, kind in space.items():
        if (
            isinstance(kind, FloatDistribution | IntDistribution)
            and not EDGE <= _place(settings[key], kind) <= 1 - EDGE
        ):
            found.append(f"{key}={settings[key]:g} of {kind.low:g} to {kind.high:g}")
    return found


def _place(value: float, kind: FloatDistribution | IntDistribution) -> float:
    """Where a value lies in its range, from 0 to 1; of very few values all lie within."""
    if isinstance(kind, IntDistribution) and (kind.high - kind.low) / kind.step < 3:
        return 0.5
    low, high, value = (math.log(one) if kind.log else one for one in (kind.low, kind.high, value))
    return (value - low) / (high - low)


def space_text(space: Space) -> str:
    """Equal spaces have equal texts."""
    return json.dumps({key: distribution_to_json(kind) for key, kind in space.items()}, sort_keys=True)


def words_of(settings: Mapping[str, Any]) -> list[str]:
    """The settings as words of a call: optimizer.lr=0.003."""
    return [f"{key}={_word(value)}" for key, value in settings.items()]


def _word(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_word, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_word(one)}" for key, one in value.items()) + "}"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int | float):
        return repr(value)
    text = str(value)
    return text if re.fullmatch(r"[A-Za-z_][\w./-]*", text) and text.lower() not in NOT_TEXTS else f"'{_quoted(text)}'"


NOT_TEXTS = {"null", "true", "false", "nan", "inf"}


def _quoted(text: str) -> str:
    return text.replace("'", "\\'")
