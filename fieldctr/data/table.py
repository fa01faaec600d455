"""What a source hands over: a lazy frame, the files behind it, and how they are read."""

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self

import polars as pl

from fieldctr.data.columns import OWN
from fieldctr.data.formats import obstacle
from fieldctr.data.reading import Reading
from fieldctr.errors import LabelError, UserError
from fieldctr.raw_files import beside, refuse_changed

SPLITS = ("train", "valid", "test")
# What a source adds to the raw columns; no file has columns that begin with OWN.
LABEL = f"{OWN}label"  # 0 or 1; other numbers and null are refused
SPLIT = f"{OWN}split"  # train, valid, test, or EVENTS
DROP = f"{OWN}drop"  # null keeps the row, else the reason to leave it out
PCTR = f"{OWN}pctr"  # the true click probability, where a generator knows it
EVENTS = "events"  # in the place of a split: a row that is no sample, only something that happened; for histories
CHUNK = 1 << 16  # rows in memory at a time, and of a block, which encoders see at once
MOST_CSV_BYTES = 1 << 21  # bytes that polars parses at a time


def parse_at_a_time(size: int) -> None:
    """Let polars parse so many bytes of a CSV at a time.

    Left to itself it reads more ahead the larger the file: 2x the memory at 700 MB, for the same seconds. Not a
    documented setting, and read at every scan; a test holds polars to it.
    """
    os.environ["POLARS_CSV_CHUNK_SIZE"] = str(size)


if "POLARS_CSV_CHUNK_SIZE" not in os.environ:
    parse_at_a_time(MOST_CSV_BYTES)


class Table(NamedTuple):
    """One row per sample, not yet read.

    `frame` has the raw columns, LABEL, SPLIT and, if the source wants, DROP and PCTR.
    """

    frame: pl.LazyFrame
    files: tuple[Path, ...] = ()  # all that the frame depends on
    separator: str | None = None  # of delimited files with a header line: lets an error name the line
    facts: Mapping[str, object] = {}  # what else the source knows; ends in facts.json
    about_label: Callable[[pl.LazyFrame], str] | None = None  # what to say of labels that cannot be
    counts: Mapping[str, pl.LazyFrame] = {}  # frames of one number: what of the side tables was left aside, and why
    texts: Mapping[str, str] = {}  # what a language model reads of a field, in the place of what the YAML says
    readings: Mapping[Path, Reading] = {}  # how each file is read, where `separator` does not say it of all

    @property
    def written(self) -> Mapping[Path, Reading]:
        """How each of the files is read that have lines of cells."""
        if self.separator is None:
            return self.readings
        return {path: Reading("csv", self.separator, quote='"', encoding="utf-8") for path in self.files}

    @classmethod
    def named(cls, frame: pl.LazyFrame) -> Self:
        """A table from a frame in which label, split, drop and pctr are no raw columns, but what these names say."""
        own = {name: f"{OWN}{name}" for name in ("label", "split", "drop", "pctr")}
        return cls(frame.rename(own, strict=False))


@contextmanager
def labels_explained(table: Table) -> Generator[None]:
    """Say beside what is wrong with the labels what they were made from."""
    try:
        yield
    except LabelError as error:
        if table.about_label is None:
            raise
        raise UserError(f"{error}\n{table.about_label(table.frame)}") from error


def required(raw_dir: Path, name: str, cure: str) -> Path:
    """`raw_dir/name`; a UserError says where it is expected and that `cure` brings it."""
    return required_all(raw_dir, (name,), cure)[0]


def required_all(raw_dir: Path, names: Sequence[str], cure: str) -> tuple[Path, ...]:
    """The files of these names in `raw_dir`, or one UserError for all that are absent."""
    absent = [name for name in names if obstacle(raw_dir / name)]
    if absent:
        near = beside(raw_dir / absent[0])
        folder = (
            f"\nSet FIELDCTR_DATA to the folder that holds {raw_dir.name}, or dataset.raw_dir=...; dataset=synthetic "
            "needs no file."
        )
        raise UserError(f"no file {', '.join(absent)} in {raw_dir}. {near}{cure}{'' if near else folder}")
    return tuple(raw_dir / name for name in names)


@contextmanager
def refused_if_changed(before: Mapping[str, str]) -> Generator[None]:
    """`refuse_changed` at the end, and in the place of what reading a file that changes may have raised."""
    try:
        yield
    except (UserError, OSError, ValueError, pl.exceptions.PolarsError):
        refuse_changed(before)
        raise
    refuse_changed(before)
