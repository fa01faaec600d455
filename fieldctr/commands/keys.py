"""The keys of a command's configuration, read from its YAML without Hydra: default, comment, and range.

For help and completion, which must answer at once: importing Hydra takes 0.3 s.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from fieldctr.catalog import groups, options, yaml_file

COMMENT = re.compile(r":?\s*#\s*(.*)")
GLOBAL = "# @package _global_"  # in the first line of an option that sets keys of the root


class Key(NamedTuple):
    """A key of a configuration."""

    name: str  # dotted
    default: str  # as YAML writes it
    comment: str


def defaults_of(command: str) -> dict[str, str]:
    """The groups of a command's defaults list, each with the option that it takes."""
    entries = [item for item in _plain(yaml_file(command)).get("defaults", []) if isinstance(item, dict)]
    pairs = {key.removeprefix("optional "): value for item in entries for key, value in item.items()}
    return {group: str(option) for group, option in pairs.items() if group in groups()}


def root_keys(command: str) -> list[Key]:
    """The keys that a command has whatever is chosen, and those that all commands share."""
    keys = [key for name in ("base", command) if (path := yaml_file(name)) for key in _keys(path)]
    return [key for key in keys if key.name.partition(".")[0] not in ("defaults", "hydra")]


def option_keys(group: str, option: str, own: str | Path | None = None) -> list[Key]:
    """The keys of an option and of those in its group that it starts from, by the names that a call gives them."""
    path = yaml_file(f"{group}/{option}", own)
    if path is None:
        return []
    found: dict[str, Key] = {}
    for base in bases(group, option, own):
        found |= {key.name: key for key in option_keys(group, base, own)}
    prefix = "" if path.read_text(encoding="utf-8").startswith(GLOBAL) else f"{group}."
    for key in _keys(path):
        if key.name.partition(".")[0] != "defaults":
            name = f"{prefix}{key.name}"
            comment = key.comment or (found[name].comment if name in found else "")
            found[name] = Key(name, key.default, comment)
    return list(found.values())


def bases(group: str, option: str, own: str | Path | None = None) -> list[str]:
    """The options of the group that this one starts from."""
    entries = _plain(yaml_file(f"{group}/{option}", own)).get("defaults", [])
    names = [entry.partition("@")[0] for entry in entries if isinstance(entry, str)]
    return [name for name in names if name in options(group, own) and name != option]


def targets(chosen: Mapping[str, str], own: str | Path | None = None) -> dict[str, str]:
    """The import paths that the chosen options name, by the dotted name of their node."""
    keys = (key for pair in chosen.items() for key in option_keys(*pair, own))
    ends = ((*key.name.rpartition("."), key.default) for key in keys)
    return {node: path for node, _, last, path in ends if last == "_target_"}


def hint(name: str, command: str, targets: Mapping[str, str]) -> Any:
    """The type of a key; None where only its owner knows it."""
    from fieldctr.commands.types import type_of  # 30 ms

    return type_of(name, command, targets)


def choices(name: str, command: str, targets: Mapping[str, str]) -> list[str]:
    """The allowed values of a key that has few."""
    found = hint(name, command, targets)
    kinds = [found, *get_args(found)] if get_origin(found) in (Union, UnionType) else [found]
    listed = [str(choice) for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    return listed or (["true", "false"] if bool in kinds else [])


@cache
def _keys(path: Path) -> list[Key]:
    import yaml

    text = path.read_text(encoding="utf-8")
    node = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return list(_leaves(node, text.splitlines(), "")) if isinstance(node, yaml.MappingNode) else []


def _leaves(node: Any, lines: list[str], prefix: str) -> Iterator[Key]:
    """Keys of a block of YAML in its order; a mapping in braces and a list are values."""
    import yaml

    for key, value in node.value:
        name = f"{prefix}{key.value}"
        inline = isinstance(value, yaml.ScalarNode) or value.flow_style
        end = value.end_mark if inline and value.end_mark.line == value.start_mark.line else key.end_mark
        comment = COMMENT.match(lines[end.line][end.column :].strip()) if end.line < len(lines) else None
        text = comment[1] if comment else ""
        if isinstance(value, yaml.MappingNode) and not inline:
            yield from ([Key(name, "...", text)] if text else [])
            yield from _leaves(value, lines, f"{name}.")
        else:
            yield Key(name, _written(value, lines), text)


def _written(node: Any, lines: list[str]) -> str:
    """A value as it stands in the file, on one line."""
    start, end = node.start_mark, node.end_mark
    if start.line == end.line:
        return lines[start.line][start.column : end.column].strip() if start.line < len(lines) else ""
    whole = [lines[start.line][start.column :], *lines[start.line + 1 : end.line + 1]]
    return " ".join(line.partition(" #")[0].strip() for line in whole).strip()


def _plain(path: Path | None) -> Mapping[str, Any]:
    import yaml

    node = yaml.safe_load(path.read_text(encoding="utf-8")) if path else None
    return node if isinstance(node, dict) else {}
