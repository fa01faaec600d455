"""The types that a class or function gives its keywords, read from its source.

Importing a model costs two seconds of torch: help, completion and the refusal of a wrong value need none of it. Nothing
of a source is run, and only those of trusted packages are read.
"""

import ast
import builtins
import importlib
import operator
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, field, make_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fieldctr.catalog import PACKAGE
from fieldctr.config import Between
from fieldctr.trust import OWN, root, trusted

OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {  # A | B, 2**32 - 1
    ast.BitOr: operator.or_,
    ast.Sub: operator.sub,
    ast.Pow: operator.pow,
}
LIGHT = ("typing", "collections.abc", "pathlib", "fieldctr.config")  # imported as they are; others are read
UNKNOWN = (AttributeError, KeyError, NameError, SyntaxError, TypeError, ValueError)  # of a type that is no plain one


@cache
def keywords(target: str) -> dict[str, Any]:
    """The type of each keyword-only parameter of what a `_target_` names; Any for one that cannot be read so."""
    module, _, name = target.rpartition(".")
    names = names_of(module)
    node = names.defined.get(name)
    if isinstance(node, ast.ClassDef) and _is_dataclass(node):
        return {ast.unparse(one.target): names.type_of(one.annotation) for one in _fields(node)}
    if isinstance(node, ast.ClassDef):
        node = next((part for part in node.body if getattr(part, "name", "") == "__init__"), None)
    if not isinstance(node, ast.FunctionDef):
        return {}
    return {one.arg: names.type_of(one.annotation) for one in node.args.kwonlyargs}


@cache
def record(path: str) -> type | None:
    """The dataclass of this import path with its fields and no more; None where there is none."""
    module, _, name = path.rpartition(".")
    try:
        found = names_of(module)[name]
    except UNKNOWN:
        return None
    return found if isinstance(found, type) else None


class Names(Mapping[str, Any]):
    """What the names of a module mean that a type can be written with, each looked up when it is asked for."""

    def __init__(self, module: str) -> None:
        path = source(module)
        tree = ast.parse(path.read_text(encoding="utf-8")) if path else ast.Module([], [])
        self.defined = {name: node for node in statements(tree) for name in _names(node)}

    def __getitem__(self, name: str) -> Any:
        node = self.defined.get(name)
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            original = next(alias.name for alias in node.names if name in (alias.asname, alias.name))
            light = node.module in LIGHT
            return getattr(importlib.import_module(node.module), original) if light else names_of(node.module)[original]
        if isinstance(node, ast.Assign):
            return self._evaluated(node.value)
        if isinstance(node, ast.ClassDef) and _is_dataclass(node):
            return self._record(node)
        if node is None and isinstance(kind := getattr(builtins, name, None), type):
            return kind
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.defined)

    def __len__(self) -> int:
        return len(self.defined)

    def type_of(self, annotation: ast.expr | None) -> Any:
        """The type that an annotation names."""
        try:
            found = Any if annotation is None else self._evaluated(annotation)
        except UNKNOWN:
            return Any
        return Any if isinstance(found, str) else found

    def _evaluated(self, node: ast.expr) -> Any:
        """What a type is written with: names, subscripts, unions, a range. No code runs."""
        match node:
            case ast.Name(id=name):
                return self[name]
            case ast.Constant(value=value):
                return value
            case ast.Subscript(value=kind, slice=inner):
                return self._evaluated(kind)[self._evaluated(inner)]
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                found = map(self._evaluated, parts)
                return tuple(found) if isinstance(node, ast.Tuple) else [*found]
            case ast.BinOp(left=left, op=sign, right=right):
                return OPERATORS[type(sign)](self._evaluated(left), self._evaluated(right))
            case ast.Call(func=ast.Name(id=Between.__name__), args=ends):
                return Between(*map(self._evaluated, ends))
        raise KeyError(ast.unparse(node))

    def _record(self, node: ast.ClassDef) -> type:
        fields = [
            (ast.unparse(part.target), self.type_of(part.annotation), field(default=None if part.value else MISSING))
            for part in _fields(node)
        ]
        bases = tuple(self._evaluated(base) for base in node.bases)
        return make_dataclass(node.name, fields, bases=bases, frozen=True, kw_only=True)


@cache
def names_of(module: str) -> Names:
    """The names of a module; none of one that is not trusted."""
    return Names(module if root(module) in trusted() else "")


def source(module: str) -> Path | None:
    """Where the source of a module lies, which nothing is imported for."""
    folders = [PACKAGE.parent] if root(module) == OWN else [*map(Path, sys.path), Path.cwd()]
    parts = Path(*module.split("."))
    files = (folder / end for folder in folders for end in (f"{parts}.py", parts / "__init__.py"))
    return next((path for path in files if path.is_file()), None)


def statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """The statements of a module, those under an `if` as well."""
    for node in tree.body:
        yield from [*node.body, *node.orelse] if isinstance(node, ast.If) else [node]


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(one) for one in node.decorator_list)


def _fields(node: ast.ClassDef) -> list[ast.AnnAssign]:
    """The fields of a dataclass."""
    return [part for part in node.body if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)]


def _names(node: ast.stmt) -> list[str]:
    """The names that a statement defines."""
    if isinstance(node, ast.ImportFrom):
        return [alias.asname or alias.name for alias in node.names]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return [node.name] if isinstance(node, ast.ClassDef | ast.FunctionDef) else []
