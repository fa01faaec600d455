"""Which packages a configuration may name code of: fieldctr's own, and those that the user trusts.

Importing a module runs it, and a `_target_` is called: a YAML file or a run folder from a stranger may choose neither.
So trust is no key of any configuration. It stands in the user's own call, `trust=mymodels`, or in the environment.
"""

import os
import sys
from collections.abc import Iterable
from functools import cache

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


def root(path: str) -> str:
    """The package of a dotted path."""
    return path.partition(".")[0]


def _packages(names: str, key: str) -> set[str]:
    found = {name.strip() for name in names.split(",") if name.strip()}
    for name in sorted(found):
        if not name.isidentifier():
            raise UserError(f"{key}={name}: expected the name of a package, such as mymodels, without dots")
        if name in sys.stdlib_module_names:
            raise UserError(f"{key}={name}: this is a part of Python, which no configuration may call")
    return found
