"""What a `_target_` names: a class or a function of a package that is trusted, and of the kind that is wanted."""

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fieldctr.errors import UserError, nearest
from fieldctr.trust import VARIABLE, find_trusted, root, trusted


@dataclass(frozen=True)
class Kind:
    """What the `_target_` of a node must be. Its owner says so: the sources, the models, the metrics."""

    what: str  # with its article
    example: str  # an import path
    fits: Callable[[Any], bool]  # of a class or a function
    packages: tuple[str, ...] = ()  # that may be named besides those that the user trusts


def locate(node: Mapping[str, Any], name: str, kind: Kind) -> Callable[..., Any]:
    """The class or function that the node's `_target_` names."""
    path = node.get("_target_")
    if not isinstance(path, str):
        raise UserError(f"'{name}' has no _target_: the import path of {kind.what}, such as {kind.example}")
    return imported(path, f"{name}._target_", kind)


def imported(path: str, key: str, kind: Kind) -> Callable[..., Any]:
    """The class or function of this import path, which `key` names.

    Nothing is imported from a package that is not trusted, for importing runs it. What a trusted module has imported
    from elsewhere does not pass either, nor what is not of this kind.
    """
    key, known = f"{key}={path}", trusted() | {*kind.packages}
    if not root(path):
        raise UserError(f"{key} is no import path, such as {kind.example}")
    if root(path) not in known:
        raise UserError(f"{key} is refused: {_not_trusted(root(path))}")
    module, _, attribute = path.rpartition(".")
    find_trusted()
    try:
        home = importlib.import_module(module)
    except (ImportError, ValueError) as error:
        raise UserError(f"{key} cannot be imported: {error}") from error
    target = getattr(home, attribute, None) if attribute[:1] != "_" else None
    if target is None:
        own = [
            word for word, value in vars(home).items() if getattr(value, "__module__", "") == module and word[0] != "_"
        ]
        raise UserError(f"{key}: {module} has no {attribute}. {nearest(attribute, own)}".rstrip())
    if root(str(getattr(target, "__module__", path))) not in known:
        origin = target.__module__
        raise UserError(f"{key} is refused: that is {origin}.{attribute}, and {_not_trusted(root(origin))}")
    if not (inspect.isclass(target) or inspect.isfunction(target)) or not kind.fits(target):
        raise UserError(f"{key} is refused: expected {kind.what}, such as {kind.example}")
    return target


def _not_trusted(package: str) -> str:
    if package in sys.stdlib_module_names:
        return f"{package} is a part of Python, which no configuration may call"
    return (
        f"the package {package} is not trusted. If you know its code, add trust={package} to the "
        f"call, or set {VARIABLE}={package} once for a shell; read a stranger's first: it can do whatever you can"
    )
