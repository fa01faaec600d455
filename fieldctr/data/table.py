"""What a source hands over: a lazy frame, the files behind it, and errors that name the file and the line."""

import csv
import json
import os
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from fieldctr.artifacts import file_digest, write_json
from fieldctr.errors import UserError

SPLITS = ("train", "valid", "test")
BLOCK = 1 << 22  # bytes read at a time when cells are counted
# Bytes that polars parses at a time. Left to itself it reads more ahead the larger the file: 2x the memory at 700 MB,
# for the same seconds. Not a documented setting, and read at every scan; a test holds polars to it.
os.environ.setdefault("POLARS_CSV_CHUNK_SIZE", str(1 << 21))


class Table(NamedTuple):
    """One row per sample, not yet read.

    `frame` has the raw columns, `label` (0 or 1), `split` (train, valid, test) and, if the source wants, `drop` (null
    keeps the row, else the reason to leave it out) and `pctr` (the true click probability).
    """

    frame: pl.LazyFrame
    files: tuple[Path, ...] = ()  # all that the frame depends on
    separator: str | None = None  # of delimited files with a header line: lets an error name the line
    facts: Mapping[str, object] = {}  # what else the source knows; ends in facts.json


def required(raw_dir: Path, name: str, cure: str) -> Path:
    """`raw_dir/name`; a UserError says where it is expected and that `cure` brings it."""
    if (raw_dir / name).is_file():
        return raw_dir / name
    raise UserError(
        f"no file {name} in {raw_dir}. {cure} Set FIELDCTR_DATA to the folder that holds {raw_dir.name}, "
        "or dataset.raw_dir=...; dataset=synthetic needs no file."
    )


def scan_csv(path: Path, *, separator: str = ",") -> pl.LazyFrame:
    """All columns as text: what a number is, its field decides. Quotes are double quotes, the first line is the header.

    Refuses two columns of one name (polars would rename the second) and a header that the separator does not cut.
    """
    with explained((path,), separator):
        frame = pl.scan_csv(path, separator=separator, infer_schema=False, empty_string_is_null=False, glob=False)
        names = frame.collect_schema().names()
    twins = [match[1] for name in names if (match := re.fullmatch(r"(.+)_duplicated_\d+", name))]
    if twins:
        raise UserError(f"{path}: two columns are called '{twins[0]}'. Rename one in the header.")
    if len(names) == 1:
        raise UserError(
            f"{path}: the separator {separator!r} does not cut its header {names[0][:60]!r}. Set separator."
        )
    return frame


@contextmanager
def explained(files: tuple[Path, ...], separator: str | None = None) -> Generator[None]:
    """Turn what polars says about an unreadable file into a UserError with file, line and reason."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        for path in files:
            if separator:
                refuse_ragged(path, separator)
        where = ", ".join(map(str, files)) or "the source"
        raise UserError(f"{where}: {str(error).splitlines()[0]}. Nothing was written.") from error


def refuse_short_lines(path: Path, separator: str) -> None:
    """Refuse what polars would fill with empty cells: a line of a delimited file that ends too early.

    Counts separators and line ends outside quotes, about 2 GB/s.
    """
    separators = lines = 0
    quoted, last = False, b"\n"
    with path.open("rb") as file:
        columns = len(next(csv.reader([file.readline().decode("utf-8", "replace")], delimiter=separator), []))
        while block := file.read(BLOCK):
            last = block[-1:]
            plain, quoted = _outside_quotes(block, quoted)
            separators += _count(plain, separator)
            lines += _count(plain, "\n")
    if separators != (columns - 1) * (lines + (last != b"\n")):
        refuse_ragged(path, separator)


def _count(block: bytes, character: str) -> int:
    return int(np.count_nonzero(np.frombuffer(block, np.uint8) == ord(character)))  # 5x bytes.count


def _outside_quotes(block: bytes, quoted: bool) -> tuple[bytes, bool]:
    if not quoted and b'"' not in block:
        return block, False
    parts = block.split(b'"')
    return b"".join(parts[quoted::2]), quoted ^ (len(parts) % 2 == 0)


def refuse_ragged(path: Path, separator: str) -> None:
    """UserError for the first line of a delimited file whose number of columns differs from the header's, if any."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.reader(file, delimiter=separator)
        try:
            expected = len(next(lines, []))
            for cells in lines:
                if len(cells) != expected:
                    raise UserError(
                        f"{path} line {lines.line_num:,}: {len(cells)} columns, expected {expected}. "
                        "Nothing was written."
                    )
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{path} after line {lines.line_num:,}: {error}. Nothing was written.") from error


def digests(files: tuple[Path, ...], memo: Path) -> list[list[str]]:
    """[name, sha256] of each file, remembered in the JSON file `memo` while path, size and modification time agree."""
    known = json.loads(memo.read_text(encoding="utf-8")) if memo.exists() else {}
    fresh = {}
    for path in files:
        stat = path.stat()
        stamp = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}"
        fresh[stamp] = known.get(stamp) or file_digest(path)
    if not fresh.keys() <= known.keys():
        write_json(memo, known | fresh)
    return [[path.name, sha] for path, sha in zip(files, fresh.values(), strict=True)]
