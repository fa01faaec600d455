"""Any table with one row per sample: CSV, TSV or Parquet, one file, a glob of them, or one for each split."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import polars.selectors as cs

from fieldctr.config import nearest
from fieldctr.data.labels import shown, with_label
from fieldctr.data.splits import FILE, ROW, needs_rows, with_split
from fieldctr.data.table import OWN, SPLITS, Table, explained, required_all, scan_csv
from fieldctr.errors import UserError


def read(
    raw_dir: Path,
    *,
    files: str | Mapping[str, str],
    origin: str,
    separator: str,
    null_values: Sequence[str],
    label: Mapping[str, Any],
    split: Mapping[str, Any],
    header: Sequence[str] | None = None,
) -> Table:
    """The files `raw_dir/files` (a name or a glob, read in the order of their names), one below the other.

    For `split` {by: file}, `files` is {train: name or glob, valid: ..., test: ...}. Else `split` is as in
    `fieldctr.data.splits.with_split`. `label` is {column}, for 0 and 1; or {column, positive: [values]}; or {column,
    above: number}. `separator`, `null_values` (texts that mean missing) and `header` (the columns, where the first
    line is a row already) are for delimited files. `origin` says where the files are to be had, for the message that
    they are absent.
    """
    cure = f"Get it from {origin}." if origin else "It is your table."
    named = _named(files, split)
    required_all(raw_dir, [pattern for pattern in named.values() if not any(raw_dir.glob(pattern))], cure)
    found = [(name, path) for name, pattern in named.items() for path in sorted(raw_dir.glob(pattern))]
    paths = tuple(path for _, path in found)
    delimited = paths[0].suffix != ".parquet"
    row = ROW if len(paths) == 1 and needs_rows(split) else None
    frames = [
        scan_csv(p, separator=separator, header=header, row=row) if delimited else _scan_parquet(p) for p in paths
    ]
    if not isinstance(files, str):
        frames = [frame.with_columns(pl.lit(name).alias(FILE)) for frame, (name, _) in zip(frames, found, strict=True)]
    with explained(paths):
        frame = pl.concat(frames)
        frame.collect_schema()
    if delimited and null_values:
        raw = ~cs.starts_with(OWN)
        frame = frame.with_columns(pl.when(~raw.is_in(list(null_values))).then(raw))
    frame = with_split(with_label(frame, label), split)
    return Table(frame, paths, separator if delimited else None, about_label=partial(shown, label))


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


def _scan_parquet(path: Path) -> pl.LazyFrame:
    with explained((path,)):
        frame = pl.scan_parquet(path, glob=False)
        frame.collect_schema()
    return frame
