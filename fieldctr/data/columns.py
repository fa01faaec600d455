"""Columns by their names, which are names and nothing else."""

from collections.abc import Iterable

import polars as pl
from polars import selectors

from fieldctr.errors import UserError

OWN = "fieldctr:"  # begins the names of the program's columns, which no file's may have


def column(name: str) -> pl.Expr:
    """The column of this name. `pl.col` takes `*` for all of them, and ^...$ for a pattern."""
    pattern = name == "*" or (name.startswith("^") and name.endswith("$"))
    return selectors.by_name(name).as_expr() if pattern else pl.col(name)


def refuse_own(names: Iterable[str], path: object) -> None:
    """UserError for a name that only the program's columns may have."""
    if own := next((name for name in names if name.startswith(OWN)), None):
        raise UserError(f"{path}: a column is called '{own}'. Rename it: names with {OWN} are kept for the program.")
