"""Frames in the place of files: a polars or pandas frame becomes a Parquet file, which is read as any other file is.

The sha256 of that file's bytes decides the digest of the table, as with every raw file. polars writes equal frames to
equal bytes, however their rows lie in memory; categories are written as their texts. A polars that writes other bytes
only costs a new preparation.
"""

import hashlib
import io
import tempfile
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from fieldctr.artifacts import cached, check_stage
from fieldctr.config import as_name, checked
from fieldctr.errors import UserError

FOLDER, FILE = "frames", "frame.parquet"  # below outputs: frames/<digest>/frame.parquet
Frame = pl.DataFrame
LazyFrame = pl.LazyFrame


class PandasFrame(Protocol):
    """What is asked of a pandas frame. Its index is no column."""

    @property
    def columns(self) -> Any: ...
    def isna(self) -> Any: ...
    def __getitem__(self, name: Any, /) -> Any: ...


AnyFrame = pl.DataFrame | pl.LazyFrame | PandasFrame


def in_place_of_files(node: Mapping[str, Any], frame: AnyFrame, outputs: Path) -> dict[str, Any]:
    """The `dataset` node with a frame instead of its source's files: it is stored below `outputs`, once per content.

    SideTable tables stay where the node has them. UserError for a source that has no key `files`.
    """
    source = checked(node.get("source"), dict, "dataset.source")
    if not isinstance(source.get("files"), str):
        raise UserError(
            f"dataset '{node.get('name')}' takes no frame: its source {source.get('_target_')} reads files of its own. "
            "dataset=tidy takes any table"
        )
    beside = Path(str(node.get("raw_dir"))).resolve()
    joins = {name: _placed(join, beside) for name, join in (source.get("joins") or {}).items()}
    content = source | {"files": FILE} | ({"joins": joins} if joins else {})
    return {**node, "source": content, "raw_dir": str(stored(frame, outputs / FOLDER))}


def _placed(join: Any, folder: Path) -> Any:
    known = isinstance(join, Mapping) and "files" in join  # else its reader says what is wrong
    return {**join, "files": str(folder / str(join["files"]))} if known else join


def stored(frame: AnyFrame, root: Path) -> Path:
    """The folder below `root` that holds the frame as FILE, written now unless a frame of equal content was before."""
    content = in_parquet(as_polars(frame))
    key = {"frame": hashlib.sha256(content).hexdigest()}

    def build(folder: Path) -> None:
        (folder / FILE).write_bytes(content)

    folder = cached(root, key, build)
    check_stage(folder)
    return folder


@contextmanager
def as_file(rows: AnyFrame | str | Path) -> Generator[Path]:
    """The path of the rows: their own, or that of a temporary file with the frame."""
    if isinstance(rows, str | Path):
        yield Path(rows)
        return
    content = in_parquet(as_polars(rows))
    with tempfile.TemporaryDirectory(prefix="fieldctr-") as folder:
        path = Path(folder) / FILE
        path.write_bytes(content)
        yield path


def in_parquet(frame: pl.DataFrame) -> memoryview:
    """The bytes of its Parquet file."""
    buffer = io.BytesIO()
    try:
        frame.with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String)).rechunk().write_parquet(buffer)
    except pl.exceptions.PolarsError as error:
        raise UserError(f"the frame cannot be stored as Parquet: {' '.join(str(error).split())}") from error
    return buffer.getbuffer()


def as_polars(frame: AnyFrame) -> pl.DataFrame:
    """A polars frame as it is, a pandas frame column by column: NaN, NaT and NA are null."""
    if isinstance(frame, pl.DataFrame | pl.LazyFrame):
        return frame.lazy().collect()
    if not hasattr(frame, "columns") or not hasattr(frame, "isna"):
        raise UserError(f"expected a polars or pandas frame, or the path of a file, got {type(frame).__name__}")
    names = {name: as_name(name, "column of the frame") for name in frame.columns}
    if len(set(names.values())) < len(frame.columns):
        raise UserError("two columns of the frame have the same name")
    return pl.DataFrame([_column(frame[name], text) for name, text in names.items()])


def _column(series: Any, name: str) -> pl.Series:
    kind = series.dtype.kind if isinstance(series.dtype, np.dtype) else ""  # pandas' own types: value by value
    if kind and kind in "iufb":
        return pl.Series(name, series.to_numpy(), nan_to_null=True)
    if kind == "M":
        return pl.Series(name, series.to_numpy().astype("datetime64[us]"))
    missing = series.isna().to_numpy()
    values = [None if absent else value for value, absent in zip(series.tolist(), missing, strict=True)]
    try:
        return pl.Series(name, values, strict=True)
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise UserError(f"column '{name}' of the frame holds values of several types, or of an unknown one") from error


def records_frame(records: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """A row for each record, null where it lacks a key."""
    return pl.DataFrame([dict(record) for record in records], infer_schema_length=None)


def columns_frame(columns: Mapping[str, np.ndarray]) -> pl.DataFrame:
    """Arrays of one length as columns."""
    return pl.DataFrame(dict(columns))
