"""The type of each key of a configuration, and the refusal of a value that is not of it, before torch is imported."""

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from functools import cache
from typing import Any, get_args, get_type_hints

from fieldctr.config import CLOSED, TrainConfig, Weight, checked, parse, with_names
from fieldctr.signatures import keywords, record

TARGET = "_target_"
RECORDS = {  # of nodes whose owners import polars or torch
    "dataset": "fieldctr.data.prepare.DatasetConfig",
    "schema": "fieldctr.data.fields.regroup.Regrouping",
    "knowledge": "fieldctr.llm.knowledge.KnowledgeConfig",
}
OF_BUILD_MODEL = {"model.embedding_std": Weight}  # which no model's class takes


@cache
def root_type(command: str) -> type | None:
    """The dataclass of a command's configuration."""
    name = "".join(word.title() for word in command.split("_"))
    return TrainConfig if command == "train" else record(f"fieldctr.commands.{command}.{name}Config")


def node_type(name: str) -> type | None:
    """The dataclass of a node that is the same in all commands."""
    return CLOSED.get(name) or (record(RECORDS[name]) if name in RECORDS else None)


def type_of(key: str, command: str, targets: Mapping[str, str]) -> Any:
    """The type of a dotted key; None where it is a node's, or only its owner knows it.

    `targets` are the import paths of the classes and functions that nodes name, by the node's dotted name.
    """
    node, _, last = key.rpartition(".")
    found: Any = keywords(targets[node]).get(last) if node in targets else None
    found = OF_BUILD_MODEL.get(key, found)
    for kind, name in ((node_type(key.partition(".")[0]), key.partition(".")[2]), (root_type(command), key)):
        found = _within(kind, name) if found is None and name else found
    return None if found is Any or is_dataclass(found) else found


def _within(kind: Any, name: str) -> Any:
    for part in name.split("."):
        kind = get_type_hints(kind, include_extras=True).get(part) if is_dataclass(kind) else None
        inner = [one for one in get_args(kind) if is_dataclass(one)]
        kind = inner[0] if inner else kind
    return kind


def refuse_values(node: Mapping[str, Any], command: str) -> None:
    """UserError for a value that the type of its key does not allow; keys of open nodes are their owners' to know."""
    if kind := root_type(command):
        parse(kind, node, "")
    for name in (*CLOSED, *RECORDS):
        inner, kind = node.get(name), node_type(name)
        if kind and inner and isinstance(inner, Mapping):
            parse(kind, with_names(inner) if name == "dataset" else inner, name)
    for name, inner in _targets(node, ""):
        types = keywords(inner[TARGET])
        for key, value in inner.items():
            full = f"{name}.{key}"
            checked(value, OF_BUILD_MODEL.get(full, types.get(key, Any)), full)


def _targets(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The nodes that name a class or a function, by dotted name."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            if isinstance(value.get(TARGET), str):
                yield f"{prefix}{key}", value
            yield from _targets(value, f"{prefix}{key}.")
