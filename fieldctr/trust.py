"""Which packages a configuration may name code of: fieldctr's own, and those that the user trusts.

Importing a module runs it, and a `_target_` is called: a YAML file or a run folder from a stranger may choose neither.
So trust is no key of any configuration. It stands in the user's own call, `trust=mymodels`, or in the environment.

A trusted package is found in the working directory too, without PYTHONPATH; nothing else there is.
"""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from fieldctr.errors import UserError

VARIABLE = "FIELDCTR_TRUST"  # names with commas between; workers and other child processes inherit it
FLAG = "trust="
OWN = "fieldctr"


def take_trust(arguments: Iterable[str]) -> list[str]:
    """The arguments without `trust=...`, which counts from here on, also in processes that this one starts."""
    rest = []
    for argument in arguments:
        if argument.startswith(FLAG):
            trusted().update(_packages(argument.removeprefix(FLAG), "trust"))
        else:
            rest.append(argument)
    if trusted() != {OWN}:
        os.environ[VARIABLE] = ",".join(sorted(trusted() - {OWN}))
    return rest


@cache
def trusted() -> set[str]:
    """The trusted packages. The environment is read once: what changes it later, while a command runs, adds nothing."""
    return {OWN, *_packages(os.environ.get(VARIABLE, ""), VARIABLE)}


def given() -> list[str]:
    """The word that says in a call what is trusted here; none where that is fieldctr alone."""
    others = sorted(trusted() - {OWN})
    return [f"{FLAG}{','.join(others)}"] if others else []


def root(path: str) -> str:
    """The package of a dotted path."""
    return path.partition(".")[0]


class WorkingDirectory(MetaPathFinder):
    """Finds trusted packages in the working directory, behind all places that Python looks in by itself.

    The directory is not put on sys.path: a file there called like a library that is absent would be imported for it.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None or fullname not in trusted() - {OWN}:
            return None
        return PathFinder.find_spec(fullname, [str(Path.cwd())])


def find_trusted() -> None:
    """Let imports find what is trusted in the working directory. Twice is once."""
    if not any(isinstance(finder, WorkingDirectory) for finder in sys.meta_path):
        sys.meta_path.append(WorkingDirectory())


def own_code(node: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Where the code of others comes from that a configuration names: by module its file and the file's sha256.

    All modules of a package count that have been imported so far, not only those that the configuration names.
    """
    import hashlib

    names = {root(text) for text in _texts(node)} & (trusted() - {OWN})
    found = {}
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if root(name) in names and file:
            found[name] = {"file": file, "sha256": hashlib.sha256(Path(file).read_bytes()).hexdigest()}
    return found


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(inner)


def _packages(names: str, key: str) -> set[str]:
    found = {name.strip() for name in names.split(",") if name.strip()}
    for name in sorted(found):
        if not name.isidentifier():
            raise UserError(f"{key}={name}: expected the name of a package, such as mymodels, without dots")
        if name in sys.stdlib_module_names:
            raise UserError(f"{key}={name}: this is a part of Python, which no configuration may call")
    return found
