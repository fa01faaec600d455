"""Rows to score: they stand in for a source's samples, are read as those were, and have no label and no split."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from fieldctr.data.columns import column
from fieldctr.data.files import scan_all
from fieldctr.data.profiles import with_profiles
from fieldctr.data.reading import Reading
from fieldctr.data.scan import say
from fieldctr.errors import UserError


class NewRows(NamedTuple):
    """A file of raw rows. Sources take it in the publisher's form, or as a table with the columns that they make."""

    path: Path
    keys: Mapping[str, Any] = {}  # of Reading: what differs from how the source reads its own file

    def scan(self, usual: Reading | None = None) -> pl.LazyFrame:
        """The raw columns, read as `usual` says and `keys` change; its format is what the bytes tell, unless named."""
        usual = usual or Reading()
        plain = usual if usual.format == "libsvm" else replace(usual, format="auto")
        return scan_all((self.path,), Reading.of(self.keys, plain))[0]

    def table_or(self, names: Iterable[str], published: Callable[[Path], pl.LazyFrame]) -> pl.LazyFrame:
        """The file as a table that has columns of these names, else as `published` reads it."""
        try:
            frame = self.scan()
        except UserError:
            return published(self.path)
        return frame if set(names) <= set(frame.collect_schema()) else published(self.path)


def derived(frame: pl.LazyFrame, **columns: pl.Expr) -> pl.LazyFrame:
    """The frame with these columns, but for those that it has already."""
    known = frame.collect_schema()
    return frame.with_columns(**{name: made for name, made in columns.items() if name not in known})


def with_side_tables(
    frame: pl.LazyFrame, tables: Mapping[str, tuple[Path, Callable[[Path], pl.LazyFrame]]]
) -> pl.LazyFrame:
    """Left joins with what the rows lack of side tables: by key column, their file and how it is read.

    A table whose columns are all there already needs no file; a file that is not there is said.
    """
    for key, (path, read) in tables.items():
        known = frame.collect_schema()
        if not path.is_file():
            say(f"{path} is not there: its columns are those that the input has")
            continue
        table = read(path)
        lacking = [name for name in table.collect_schema() if name not in known]
        if lacking and key in known:
            frame = with_profiles(frame, {key: (path, table.select(column(key), *map(column, lacking)))}).frame
    return frame
