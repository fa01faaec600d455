"""Rows to score: they stand in for a source's samples, are read as those were, and have no label and no split."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from fieldctr.data.bad_lines import refuse_bad_lines
from fieldctr.data.files import scan_all
from fieldctr.data.formats import MISSING, obstacle
from fieldctr.data.reading import Reading
from fieldctr.data.scan import say, with_nulls
from fieldctr.data.side_tables import SideTable, with_side_table, without
from fieldctr.errors import UserError


@dataclass
class NewRows:
    """A file of raw rows. Sources take it in the publisher's form, or as a table with the columns that they make."""

    path: Path
    keys: Mapping[str, Any] = field(default_factory=dict)  # of Reading: what differs from how the source reads its own
    raw: pl.LazyFrame | None = None  # the file's own columns as they stand in it, once a source has read it
    readings: dict[Path, Reading] = field(default_factory=dict)  # how it was read

    def scan(self, usual: Reading | None = None) -> pl.LazyFrame:
        """The raw columns, read as `usual` says and `keys` change; its format is what the bytes tell, unless named.

        UserError for lines that preparing would refuse.
        """
        usual = usual or Reading()
        plain = usual if usual.format == "libsvm" else replace(usual, format="auto")
        reading = Reading.of(self.keys, plain)
        self.raw, self.readings = scan_all((self.path,), replace(reading, null_values=()))
        for path, own in self.readings.items():
            refuse_bad_lines(path, own)
        return with_nulls(self.raw, reading.null_values)

    def table_or(self, names: Iterable[str], published: Callable[[Path], pl.LazyFrame]) -> pl.LazyFrame:
        """The file as a table that has columns of these names, else as `published` reads it."""
        try:
            frame = self.scan()
            if set(names) <= set(frame.collect_schema()):
                return frame
        except UserError:  # the publisher's file is no table: `published` says what is wrong with it, if anything
            pass
        self.raw, self.readings = published(self.path), {}
        return self.raw


def derived(frame: pl.LazyFrame, **columns: pl.Expr) -> pl.LazyFrame:
    """The frame with these columns, but for those that it has already."""
    known = frame.collect_schema()
    return frame.with_columns(**{name: made for name, made in columns.items() if name not in known})


def with_side_tables(
    frame: pl.LazyFrame, tables: Mapping[str, tuple[Path, Callable[[Path], pl.LazyFrame]]]
) -> pl.LazyFrame:
    """Left joins with what the rows lack of side tables: by key column, their file and how it is read.

    A file that is not there is said: the rows may have its columns themselves.
    """
    for key, (path, read) in tables.items():
        known = frame.collect_schema()
        if obstacle(path) == MISSING:
            say(f"{path} is not there: of its columns there are those that the input has")
        elif key in known and (side := without(SideTable(path.name, read(path), {key: key}), known)):
            frame = with_side_table(frame, side).frame
    return frame
