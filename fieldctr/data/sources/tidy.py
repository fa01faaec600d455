"""Any table with one row per sample: CSV, TSV or Parquet, one file or a glob of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from fieldctr.config import nearest
from fieldctr.data.specs import number, spelled
from fieldctr.data.splits import with_split
from fieldctr.data.table import Table, explained, required, scan_csv
from fieldctr.errors import UserError


def read(
    raw_dir: Path,
    *,
    files: str,
    origin: str,
    separator: str,
    null_values: Sequence[str],
    label: Mapping[str, Any],
    split: Mapping[str, Any],
) -> Table:
    """The files `raw_dir/files` (a name or a glob, read in the order of their names), one below the other.

    `label` is {column}, for 0 and 1; or {column, positive: [values]}; or {column, above: number}. `split` as in
    `fieldctr.data.splits.with_split`. `separator` and `null_values` (texts that mean missing) are for delimited files.
    `origin` says where the files are to be had, for the message that they are absent.
    """
    if not files:
        raise UserError(
            "dataset.source.files is not set: the name of a file in dataset.raw_dir, or a glob such as *.csv"
        )
    cure = f"Get it from {origin}." if origin else "It is your table."
    paths = tuple(sorted(raw_dir.glob(files))) or (required(raw_dir, files, cure),)
    delimited = paths[0].suffix != ".parquet"
    if delimited:
        frame = pl.concat([scan_csv(path, separator=separator) for path in paths])
        frame = frame.with_columns(pl.when(~pl.all().is_in(list(null_values))).then(pl.all())) if null_values else frame
    else:
        frame = pl.scan_parquet(list(paths), glob=False)
    with explained(paths):
        frame.collect_schema()
    frame = with_split(with_label(frame, label), split)
    return Table(frame, paths, separator if delimited else None)


def with_label(frame: pl.LazyFrame, rule: Mapping[str, Any]) -> pl.LazyFrame:
    """The frame with a column `label`: the rule's column as it is, or whether it is `positive` or `above` a number."""
    known, schema = ("column", "positive", "above"), frame.collect_schema()
    for key in rule:
        if key not in known:
            raise UserError(f"no key 'label.{key}'. {nearest(key, known)}All: {', '.join(known)}")
    column = rule.get("column")
    if column not in schema:
        near = nearest(str(column), schema)
        raise UserError(f"label.column={column}: no such column. {near}All: {', '.join(schema)}")
    raw = spelled(pl.col(column), schema[column])
    if rule.get("positive") is not None:
        return frame.with_columns(label=raw.is_in([str(value) for value in rule["positive"]]).cast(pl.Int8))
    if rule.get("above") is not None:
        return frame.with_columns(label=(number(column, schema[column]) > rule["above"]).cast(pl.Int8))
    return frame.with_columns(label=pl.col(column))
