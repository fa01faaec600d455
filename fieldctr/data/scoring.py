"""Raw rows with their scores, as a file."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from fieldctr.data.formats import MISSING, obstacle
from fieldctr.data.table import refused_if_changed
from fieldctr.disk import replacing
from fieldctr.errors import UserError

CSV, TSV, PARQUET = ".csv", ".tsv", ".parquet"
SUFFIXES = (CSV, TSV, PARQUET)


def check_output(output: Path, source: Path) -> None:
    """Refuse an output that cannot be written, or that is the input itself, before anything is computed."""
    if output.suffix not in SUFFIXES:
        raise UserError(f"output={output}: expected a name that ends in {' or '.join(SUFFIXES)}")
    why = obstacle(output)
    if why and why != MISSING:
        raise UserError(f"output={output} {why}: expected the name of a file to write")
    if not why and source.exists() and output.samefile(source):
        raise UserError(f"output={output} is the input itself, which would be lost. Name another file.")


def check_columns(frame: pl.LazyFrame, output: Path | None, name: str) -> None:
    """Refuse columns that the output, or a frame, cannot hold beside the scores, which it calls `name`."""
    schema = frame.collect_schema()
    if name in schema:
        raise UserError(f"the input has a column '{name}' already. Call the new one otherwise: column=...")
    nested = [column for column, dtype in schema.items() if dtype.is_nested()]
    if nested and output is not None and output.suffix != PARQUET:
        raise UserError(
            f"output={output}: column '{nested[0]}' holds {schema[nested[0]]}, which a delimited file cannot hold. "
            "Write .parquet"
        )


def with_scores(frame: pl.LazyFrame, pctr: np.ndarray, name: str) -> pl.LazyFrame:
    """The rows of `frame` with one more column, `name` (R,)."""
    return pl.concat([frame, pl.LazyFrame({name: pctr})], how="horizontal")


def write_scores(frame: pl.LazyFrame, pctr: np.ndarray, path: Path, name: str, *, files: Mapping[str, str]) -> None:
    """The rows with their scores as .csv, .tsv or .parquet; whole or not at all.

    UserError where one of the `files` has another stamp by now: the scores would stand beside other rows.
    """
    scored = with_scores(frame, pctr, name)
    with replacing(path) as temporary, refused_if_changed(files):
        if path.suffix == PARQUET:
            scored.sink_parquet(temporary)
        else:
            scored.sink_csv(temporary, separator="," if path.suffix == CSV else "\t")
