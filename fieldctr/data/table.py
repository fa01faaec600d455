"""What a source hands over: a lazy frame, the files behind it, and errors that name the file and the line."""

import csv
import gzip
import io
import json
import os
import re
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import polars as pl
import polars.selectors as cs

from fieldctr.artifacts import file_digest, write_json
from fieldctr.data.json_lines import json_lines
from fieldctr.errors import LabelError, UserError

SPLITS = ("train", "valid", "test")
OWN = "fieldctr:"  # how columns begin that a source adds and no file has: `refuse_own_names` sees to that
LABEL = f"{OWN}label"  # 0 or 1; other numbers and null are refused
SPLIT = f"{OWN}split"  # train, valid, test, or EVENTS
DROP = f"{OWN}drop"  # null keeps the row, else the reason to leave it out
PCTR = f"{OWN}pctr"  # the true click probability, where a generator knows it
EVENTS = "events"  # in the place of a split: a row that is no sample, only something that happened; for histories
BLOCK = 1 << 18  # bytes read at a time when cells are counted: what the cache holds
GZIP = b"\x1f\x8b"  # how a gzip file begins
BROKEN = (EOFError, OSError, zlib.error)  # what a file that was cut short, or is damaged, raises
UNREADABLE = re.compile(r"failed in column '(.+?)' for \d+ out of \d+ values: \[\"(.*?)\"")  # polars' words
MOST_CSV = 1 << 21  # bytes that polars parses at a time


def parse_at_a_time(size: int) -> None:
    """Let polars parse so many bytes of a CSV at a time.

    Left to itself it reads more ahead the larger the file: 2x the memory at 700 MB, for the same seconds. Not a
    documented setting, and read at every scan; a test holds polars to it.
    """
    os.environ["POLARS_CSV_CHUNK_SIZE"] = str(size)


if "POLARS_CSV_CHUNK_SIZE" not in os.environ:
    parse_at_a_time(MOST_CSV)


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

    @classmethod
    def named(cls, frame: pl.LazyFrame) -> Self:
        """Of a frame in which label, split, drop and pctr are no raw columns, but what these names say."""
        own = {name: f"{OWN}{name}" for name in ("label", "split", "drop", "pctr")}
        return cls(frame.rename(own, strict=False))


def column(name: str) -> pl.Expr:
    """The column of this very name: polars would read * and ^...$ as patterns."""
    pattern = name == "*" or (name.startswith("^") and name.endswith("$"))
    return cs.by_name(name).as_expr() if pattern else pl.col(name)


def refuse_own_names(names: Iterable[str], where: object) -> None:
    """UserError for a raw column that is called like one of the product's own."""
    for name in names:
        if name.startswith(OWN):
            raise UserError(f"{where}: a column is called '{name}'. Names that begin with {OWN} are taken: rename it.")


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
    absent = [name for name in names if not (raw_dir / name).is_file()]
    if absent:
        raise UserError(
            f"no file {', '.join(absent)} in {raw_dir}. {cure}\nSet FIELDCTR_DATA to the folder that holds "
            f"{raw_dir.name}, or dataset.raw_dir=...; dataset=synthetic needs no file."
        )
    return tuple(raw_dir / name for name in names)


def scan_csv(
    path: Path, *, separator: str = ",", header: Sequence[str] | None = None, row: str | None = None
) -> pl.LazyFrame:
    """All columns as text: what a number is, its field decides. Quotes are double quotes; gzip is read as it is.

    The first line is the header, unless `header` names the columns. `row` names one more column, the last, for the
    rows' numbers: a scan that counts them itself can start at any row for a tenth of what reading up to it costs.
    Refuses two columns of one name (polars would rename the second) and a header that the separator does not cut.
    """
    with explained((path,), separator):
        frame = pl.scan_csv(
            path, separator=separator, has_header=header is None, infer_schema=False, empty_string_is_null=False,
            glob=False, row_index_name=row,
        )  # fmt: skip
        names = [name for name in frame.collect_schema() if name != row]
    if header:
        if len(header) != len(names):
            raise UserError(f"{path} line 1: {len(names)} columns, expected {len(header)}, those of source.header.")
        frame, names = frame.rename(dict(zip(names, header, strict=True))), list(header)
        return frame.select(*names, row) if row else frame
    twins = [match[1] for name in names if (match := re.fullmatch(r"(.+)_duplicated_\d+", name))]
    if twins:
        raise UserError(f"{path}: two columns are called '{twins[0]}'. Rename one in the header.")
    if len(names) == 1:
        raise UserError(
            f"{path}: the separator {separator!r} does not cut its header {names[0][:60]!r}. Set separator."
        )
    return frame.select(*names, row) if row else frame


def plain(error: BaseException) -> str:
    """What an error says, without what polars adds about its own expressions and arguments."""
    text = str(error)
    for added in ("\n\nThis error occurred", "\n\nYou might want to try", "\n\nResolved plan until failure"):
        text = text.partition(added)[0]
    return text.strip()


def unforeseen(error: BaseException) -> str:
    """An error that no rule of ours foresaw, in a sentence."""
    return f"{type(error).__name__}: {plain(error)}. Nothing was written; --debug shows where it came from."


@contextmanager
def explained(files: tuple[Path, ...], separator: str | None = None) -> Generator[None]:
    """Turn what polars says about an unreadable file into a UserError with file, line and reason."""
    try:
        yield
    except (pl.exceptions.PolarsError, *BROKEN) as error:
        for path in files:
            if path.name.endswith(".jsonl.gz"):
                deque(json_lines(path), maxlen=0)  # raises at the bad line
            elif separator:
                refuse_ragged(path, separator)
                refuse_unreadable(path, separator, str(error))
        where = ", ".join(map(str, files)) or "the source"
        raise UserError(f"{where}: {str(error).splitlines()[0]}. Nothing was written.") from error


def refuse_short_lines(path: Path, separator: str) -> None:
    """Refuse what polars would fill with empty cells, a line that ends too early, or take for a row, a second header.

    Counts separators and line ends outside quotes, about 2 GB/s.
    """
    separators = lines = 0
    quoted, last, suspect = False, b"\n", False
    with opened(path) as file:
        first = file.readline()
        columns = len(next(csv.reader([first.decode("utf-8", "replace")], delimiter=separator), []))
        header = first.rstrip(b"\r\n")
        while block := file.read(BLOCK) + file.readline():
            last = block[-1:]
            starts = np.append(np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + 1, 0)
            suspect = suspect or _begins_a_line(block, starts, header)
            plain, quoted = _outside_quotes(block, quoted)
            separators += _count(plain, separator)
            lines += len(starts) - 1 if plain is block else _count(plain, "\n")
    if suspect or separators != (columns - 1) * (lines + (last != b"\n")):
        refuse_ragged(path, separator)


def _begins_a_line(block: bytes, starts: np.ndarray, text: bytes) -> bool:
    """Whether a line of the block can begin so. Byte by byte, where the lines still agree: 4x the speed of `in`."""
    letters = np.frombuffer(block, np.uint8)
    for k, letter in enumerate(text):
        starts = starts[letters.take(starts + k, mode="clip") == letter]
        if not len(starts):
            return False
    return True


def opened(path: Path) -> gzip.GzipFile | io.BufferedReader:
    """The bytes of a file, decompressed if they are gzip's, whatever the file is called."""
    with path.open("rb") as file:
        packed = file.read(len(GZIP)) == GZIP
    return gzip.open(path, "rb") if packed else path.open("rb")


def _count(block: bytes, character: str) -> int:
    return int(np.count_nonzero(np.frombuffer(block, np.uint8) == ord(character)))  # 5x bytes.count


def _outside_quotes(block: bytes, quoted: bool) -> tuple[bytes, bool]:
    if not quoted and b'"' not in block:
        return block, False
    parts = block.split(b'"')
    return b"".join(parts[quoted::2]), quoted ^ (len(parts) % 2 == 0)


def refuse_ragged(path: Path, separator: str) -> None:
    """UserError for the first line whose number of columns differs from the first one's, or that repeats the header."""
    for line, cells, first in _lines(path, separator):
        if len(cells) != len(first):
            raise UserError(f"{path} line {line:,}: {len(cells)} columns, expected {len(first)}. Nothing was written.")
        if cells == first and cells is not first and _names_columns(first):
            raise UserError(f"{path} line {line:,}: the header again. Two files put together? Nothing was written.")


def refuse_unreadable(path: Path, separator: str, complaint: str) -> None:
    """UserError for the first line that holds the value of which polars complains, if it names one."""
    if found := UNREADABLE.search(complaint):
        column, value = found.groups()
        for line, cells, first in _lines(path, separator):
            if value in (cells[first.index(column) :][:1] if column in first else cells):
                reason = complaint.partition(" in column")[0]
                raise UserError(f"{path} line {line:,}: '{value}' in {column}: {reason}. Nothing was written.")


def _lines(path: Path, separator: str) -> Generator[tuple[int, list[str], list[str]]]:
    """Number and cells of each line, and the first one's cells; a UserError where no text can be read."""
    with io.TextIOWrapper(opened(path), encoding="utf-8", newline="") as file:
        lines = csv.reader(file, delimiter=separator)
        try:
            first = next(lines, [])
            for cells in chain([first], lines):
                yield lines.line_num, cells, first
        except (UnicodeDecodeError, csv.Error, *BROKEN) as error:
            raise UserError(f"{path} after line {lines.line_num:,}: {error}. Nothing was written.") from error


def _names_columns(cells: list[str]) -> bool:
    """Whether a line can be a header: different words, no numbers. A row of a file without one can occur twice."""
    return len(set(cells)) == len(cells) and not any(re.fullmatch(r"[-+.\d]+", cell) for cell in cells)


def digests(files: tuple[Path, ...], memo: Path, algorithm: str = "sha256") -> list[list[str]]:
    """[name, digest] of each file, remembered in the JSON file `memo` while path, size and modification time agree."""
    known = json.loads(memo.read_text(encoding="utf-8")) if memo.exists() else {}
    fresh, found = {}, []
    for path in files:  # one file can serve two splits
        stat = path.stat()
        stamp = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}"
        fresh[stamp] = fresh.get(stamp) or known.get(stamp) or file_digest(path, algorithm)
        found.append([path.name, fresh[stamp]])
    if not fresh.keys() <= known.keys():
        write_json(memo, known | fresh)
    return found
