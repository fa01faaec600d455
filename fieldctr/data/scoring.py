"""Raw rows to score, and the same rows with their scores."""

from pathlib import Path

import numpy as np
import polars as pl

from fieldctr.data.table import explained, scan_csv
from fieldctr.errors import UserError

SEPARATORS = {".csv": ",", ".tsv": "\t"}
WRITERS = {".csv": pl.LazyFrame.sink_csv, ".parquet": pl.LazyFrame.sink_parquet}


def scan_rows(path: Path) -> pl.LazyFrame:
    """The columns of a .csv, .tsv or .parquet file; UserError for another name or a file that cannot be read."""
    if not path.is_file():
        raise UserError(f"input={path}: no such file")
    if path.suffix in SEPARATORS:
        return scan_csv(path, separator=SEPARATORS[path.suffix])
    if path.suffix != ".parquet":
        raise UserError(f"input={path}: expected a name that ends in .csv, .tsv or .parquet")
    with explained((path,)):
        frame = pl.scan_parquet(path)
        frame.collect_schema()
    return frame


def check_output(path: Path) -> None:
    """Refuse an output that `write_scores` could not write, before anything is computed."""
    if path.suffix not in WRITERS:
        raise UserError(f"output={path}: expected a name that ends in {' or '.join(WRITERS)}")


def write_scores(frame: pl.LazyFrame, pctr: np.ndarray, path: Path) -> None:
    """The rows of `frame` with one more column, `pctr` (R,), as .csv or .parquet; whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    scores = pl.LazyFrame({"pctr": pctr})
    WRITERS[path.suffix](pl.concat([frame, scores], how="horizontal"), temporary)
    temporary.replace(path)
