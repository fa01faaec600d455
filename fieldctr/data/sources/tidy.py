"""Any table with one row per sample, in one file, several, or one for each split, with side tables joined to it."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from fieldctr.data.columns import column
from fieldctr.data.fields.spelling import value_texts
from fieldctr.data.files import concat, exists, find, scan_each
from fieldctr.data.joins import with_joins
from fieldctr.data.labels import shown, with_label
from fieldctr.data.new_rows import NewRows
from fieldctr.data.reading import Reading
from fieldctr.data.splits import FILE, ROW, needs_rows, with_split
from fieldctr.data.table import SPLITS, Table, required_all
from fieldctr.errors import UserError, nearest


def read(
    raw_dir: Path,
    *,
    files: str | Mapping[str, str],
    label: Mapping[str, Any],
    split: Mapping[str, Any],
    origin: str = "",
    separator: str = ",",
    null_values: Sequence[Any] = (),
    header: Sequence[Any] | None = None,
    format: str = "auto",
    quote: str | None = "auto",
    encoding: str = "auto",
    joins: Mapping[str, Any] | None = None,
    new_rows: NewRows | None = None,
) -> Table:
    """The files `raw_dir/files` (a name, a glob or a folder, read in the order of their names), one below the other.

    For `split` {by: file}, `files` is {train: name or glob, valid: ..., test: ...}. Else `split` is as in
    `fieldctr.data.splits.with_split`. `label` is {column}, for 0 and 1; or {column, positive: [values]}; or {column,
    above: number}. How a file is written its bytes tell; what they cannot, `format`, `separator`, `header` (the
    columns, where the first line is a row already), `quote`, `encoding` and `null_values` say: the keys of
    `fieldctr.data.reading.Reading`. Folders called key=value below `raw_dir` give a column each. `joins` names tables
    of users and items, see `fieldctr.data.joins.with_joins`; label and split may be columns of theirs. `origin` says
    where the files are to be had, for the message that they are absent.
    """
    cure = f"Get it from {origin}." if origin else "It is your table."
    reading = Reading(format, separator, header, quote or "none", encoding, null_values)
    if new_rows:
        sides = with_joins(new_rows.scan(reading), joins or {}, raw_dir, reading, lacking=True)
        return Table(sides.frame, (new_rows.path, *sides.readings), readings=sides.readings)
    named = _named(files, split)
    found = _found(raw_dir, named, cure)
    paths = tuple(path for _, path in found)
    parts, readings = scan_each(paths, reading, row=ROW if needs_rows(split) else None, base=raw_dir)
    if not isinstance(files, str):
        parts = [
            (path, part.with_columns(pl.lit(name).alias(FILE)))
            for (path, part), (name, _) in zip(parts, found, strict=True)
        ]
    sides = with_joins(concat(parts), joins or {}, raw_dir, reading)
    frame = with_split(with_label(sides.frame, label), split)
    return Table(
        frame,
        (*paths, *sides.readings),
        facts=_told(reading, readings),
        counts=sides.counts | _nobody(frame, split),
        readings=sides.readings | readings,
        about_label=partial(shown, label),
    )


def _nobody(frame: pl.LazyFrame, split: Mapping[str, Any]) -> dict[str, pl.LazyFrame]:
    """For Table.counts: the rows that a split by hash takes for nobody's."""
    if split.get("by") != "hash":
        return {}
    name = str(split["column"])
    blank = value_texts(column(name), frame.collect_schema()[name]).is_null()
    return {f"rows without a {name}, which the split takes one by one": frame.select(blank.sum())}


def _told(reading: Reading, readings: Mapping[Path, Reading]) -> dict[str, object]:
    """For facts.json what the files told of themselves and new rows cannot: what quotes mean, where they are text."""
    quotes = {own.quote for own in readings.values() if own.format == "csv"} - {'"'}
    return {"reading": {"quote": quotes.pop()}} if reading.quote == "auto" and quotes else {}


def _named(files: str | Mapping[str, str], split: Mapping[str, Any]) -> Mapping[str, str]:
    """`files` by split, or under one name that is not read."""
    if not files:
        raise UserError(
            "dataset.source.files is not set: the name of a file in dataset.raw_dir, or a glob such as *.csv"
        )
    if isinstance(files, str):
        return {"all": files}
    for name in files:
        if name not in SPLITS:
            raise UserError(f"no key 'source.files.{name}'. {nearest(name, SPLITS)}All: {', '.join(SPLITS)}")
    if split.get("by") != "file":
        raise UserError(f"source.files names a file for each split: expected split.by=file, not {split.get('by')}")
    return files


def _found(raw_dir: Path, named: Mapping[str, str], cure: str) -> list[tuple[str, Path]]:
    """Each name with each of its files; one UserError for all that are absent."""
    required_all(raw_dir, [pattern for pattern in named.values() if not exists(raw_dir, pattern)], cure)
    return [(name, path) for name, pattern in named.items() for path in find(raw_dir, pattern, cure)]
