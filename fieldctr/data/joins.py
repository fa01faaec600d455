"""SideTable tables of users and items that a dataset names, read and joined to its samples."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from fieldctr.config import as_name
from fieldctr.data.files import find, scan_all
from fieldctr.data.reading import Reading
from fieldctr.data.side_tables import SideTable, with_side_table, without
from fieldctr.errors import UserError


class Sides(NamedTuple):
    """The samples with the columns of their side tables."""

    frame: pl.LazyFrame
    counts: dict[str, pl.LazyFrame]  # for Table.counts
    readings: dict[Path, Reading]  # of the files


def with_joins(
    frame: pl.LazyFrame, joins: Mapping[str, Any], raw_dir: Path, reading: Reading, *, lacking: bool = False
) -> Sides:
    """`joins` is {name: {files, on, ...}}, joined in this order, see `fieldctr.data.side_tables.with_side_table`.

    `files` is a name, a glob or a folder in `raw_dir`; `on` a column that both tables have, {column of the samples:
    column of the side table}, or a list of such columns. Further keys are those of `Reading`; the separator, quotes,
    encoding and null values are the samples' where a join does not set its own. With `lacking` the columns that the
    samples have already stay theirs, and a side table that adds none is left alone.
    """
    counts, readings = dict[str, pl.LazyFrame](), dict[Path, Reading]()
    for name, node in joins.items():
        try:
            side, how = _side(str(name), node, raw_dir, replace(reading, format="auto", header=None))
            if lacking:
                side = without(side, frame.collect_schema())
            if side is None:
                continue
            joined = with_side_table(frame, side)
        except UserError as error:
            raise UserError(f"joins.{name}: {error}") from error
        frame = joined.frame
        counts |= joined.counts
        readings |= how
    return Sides(frame, counts, readings)


def _side(name: str, node: Any, raw_dir: Path, usual: Reading) -> tuple[SideTable, dict[Path, Reading]]:
    if isinstance(node, Mapping) and True in node:
        raise UserError('YAML reads an unquoted on as true: write "on" with its quotes')
    if not isinstance(node, Mapping) or not {"files", "on"} <= node.keys():
        raise UserError("expected {files: a name or a glob, on: a column}")
    own = {key: value for key, value in node.items() if key not in ("files", "on")}
    rows, readings = scan_all(find(raw_dir, as_name(node["files"], "files")), Reading.of(own, usual), base=raw_dir)
    return SideTable(name, rows, _columns(node["on"])), readings


def _columns(on: Any) -> dict[str, str]:
    """The samples' columns of a key with those of the side table."""
    pairs = on if isinstance(on, Mapping) else {name: name for name in (on if isinstance(on, list | tuple) else [on])}
    if not pairs:
        raise UserError(f"on={on} is not allowed: expected a column, a list of columns, or {{column: its name there}}")
    return {as_name(ours, "on"): as_name(theirs, "on") for ours, theirs in pairs.items()}
