"""Lines of a raw file that cannot be rows, and what polars says of a file, as messages with file, line and cure."""

import csv
import os
import re
from collections import deque
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from fieldctr.data.formats import BROKEN
from fieldctr.data.json_lines import json_lines
from fieldctr.data.lines import Block, Text, as_text, count, line_ends, uneven
from fieldctr.data.quotes import cure_of_quotes, enclosing, misplaced
from fieldctr.data.reading import Reading
from fieldctr.disk import code_of
from fieldctr.errors import UserError

BLOCK = 1 << 18  # bytes read at a time when cells are counted: what the cache holds
UNREADABLE = re.compile(r"failed in column '(.+?)' for \d+ out of \d+ values: \[\"(.*?)\"")  # polars' words
HINTS = re.compile(
    r"\s+(You might want to try|Consider setting|This error occurred|Resolved plan until|"
    r"Did not show all|Original error|Remove these names from the schema|The current offset|It might help to try|"
    r"If this was intended).*",
    re.DOTALL,
)
ORIGINAL = re.compile(r"Original error: ```(.*?)```", re.DOTALL)
OF_QUOTES = re.compile(r"not properly escaped|malformed|more fields than|fewer fields|could not parse")
LONGEST = 80  # characters of a value that a message repeats
QUOTED = re.compile(rf"(['`\"])([^'`\"]{{{LONGEST}}})[^'`\"]*\1")


@contextmanager
def explained(
    files: Iterable[Path], separator: str | None = None, readings: Mapping[Path, Reading] | None = None
) -> Generator[None]:
    """Turn what polars says about an unreadable file into a UserError with file, line and reason.

    What the system says of a disk stays an OSError.

    `separator` is for all of the files, if they are delimited ones with a header; `readings` say it of each.
    """
    files = tuple(files)
    try:
        yield
    except (pl.exceptions.PolarsError, *BROKEN) as error:
        if (code := code_of(error)) is not None:  # the disk's fault, not the file's
            named = getattr(error, "filename", None) or ", ".join(p for p in map(str, files) if p in str(error))
            raise OSError(code, os.strerror(code), named or ", ".join(map(str, files))) from error
        for path in files:
            reading = (readings or {}).get(path) or (Reading(separator=separator) if separator else None)
            _explain(path, reading, str(error))
        where = ", ".join(map(str, files)) or "the source"
        raise UserError(f"{where}: {reason(error)}. Nothing was written.") from error


def _explain(path: Path, reading: Reading | None, complaint: str) -> None:
    if path.name.endswith(".jsonl.gz"):
        deque(json_lines(path), maxlen=0)  # raises at the bad line
    text = as_text(path, reading) if reading else None
    if text:
        refuse_first(text)
        refuse_unreadable(text, complaint)
        if OF_QUOTES.search(complaint) and (found := first_misplaced(text, harmful=False)):
            raise found.error


@contextmanager
def in_a_sentence(where: str, failing: str) -> Generator[None]:
    """The last net around a table nobody has seen: whatever is raised becomes a UserError that begins with `where`.

    `failing` says then what cannot be done. What the machine has not, memory or a disk, is not the table's fault.
    """
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}: {without_hints(error)}") from error
    except (OSError, MemoryError):
        raise
    except (Exception, pl.exceptions.PanicException) as error:
        said = f"{type(error).__name__}: {reason(error)}. Nothing was written; --debug shows where it came from."
        raise UserError(f"{where} {failing}: {said}") from error


def without_hints(error: BaseException) -> str:
    """A message of ours that passed through polars, which adds where it was raised."""
    return HINTS.sub("", str(error))


def reason(error: BaseException) -> str:
    """The sentences of polars' message that say what is wrong, without its hints about Python's arguments."""
    text = str(error)
    first = HINTS.sub("", text)
    if inner := ORIGINAL.search(text):
        first = f"{first}: {inner[1]}"
    words = QUOTED.sub(r"\1\2...\1", " ".join(first.split()))
    return words.rstrip(". ") or type(error).__name__


def refuse_short_lines(path: Path, separator: str) -> None:
    """UserError for a line with too few or too many cells, in a file with double quotes."""
    refuse_bad_lines(path, Reading(separator=separator, quote='"'))


def refuse_bad_lines(path: Path, reading: Reading) -> None:
    """Refuse what polars would fill with empty cells, a line that ends too early, or take for a row, a second header.

    A blank line is such a line unless only blank ones follow, or there is one column, in which it is a blank cell.
    Refuses quotes that close within a cell too, which polars drops. Counts the cells of every line outside quotes, at
    1 to 2 GB/s. Formats that have no lines of cells pass.
    """
    text = as_text(path, reading)
    if text and _suspect(text):
        refuse_first(text)


def _suspect(text: Text) -> bool:
    columns, header = 0, b""
    for block in text.blocks(BLOCK):
        first = not columns
        if first:
            columns = len(text.header())
            header = b"" if text.reading.header else block.text.lstrip(b"\r\n").partition(b"\n")[0].rstrip(b"\r")
        ends = line_ends(block.text)
        if header and _repeats(block.text, ends, header, first):
            return True
        if _has_bad_line(block, ends, columns, text.parsed_quote):
            return True
    return False


def _has_bad_line(block: Block, ends: np.ndarray, columns: int, quote: str) -> bool:
    plain, mark = block.text, quote.encode()
    if not plain.endswith(b"\n"):
        plain += b"\n"  # a last line that is one quoted cell would be no line at all without its quotes
    if quote != "none" and mark in plain:
        opens, closes, odd = enclosing(plain, block.separator, mark)
        if odd or (opens & ~closes).any():
            return True
        if not opens.all() and misplaced(block.text, block.separator, mark, harmful=True) is not None:
            return True
        plain = b"".join(plain.split(mark)[::2])
        ends = line_ends(plain)
    return uneven(plain, block.separator, columns, ends)


def _repeats(block: bytes, ends: np.ndarray, header: bytes, first: bool) -> bool:
    """Whether a line, but for the file's first, can begin like the header. Byte by byte, where they still agree."""
    letters = np.frombuffer(block, np.uint8)
    starts = np.append(0, ends[:-1] + 1)[int(first) :]
    for k, letter in enumerate(header):  # 4x the speed of `in`
        starts = starts[letters.take(starts + k, mode="clip") == letter]
        if not len(starts):
            return False
    return True


def refuse_first(text: Text) -> None:
    """UserError for the first line with a quote that changes what the lines behind it are, or that is no row."""
    found = first_misplaced(text, harmful=True)
    _refuse_ragged(text, found.line if found else None)
    if found:
        raise found.error


def _refuse_ragged(text: Text, end: int | None) -> None:
    """UserError for the first line, before `end`, whose number of columns is not the first one's; or a header again."""
    for line, cells, first in _lines(text):
        if end is not None and line >= end:
            return
        blank_cell = not cells and len(first) == 1
        if len(cells) != len(first) and not blank_cell:
            raise UserError(
                f"{text.path} line {line:,}: {len(cells)} columns, expected {len(first)}{_cure(text, cells)}. "
                "Nothing was written."
            )
        if cells == first and cells is not first and text.reading.header is None and _names_columns(first):
            raise UserError(
                f"{text.path} line {line:,}: the header again. Two files put together? Nothing was written."
            )


def refuse_unreadable(text: Text, complaint: str) -> None:
    """UserError for the first line that holds the value of which polars complains, if it names one."""
    if found := UNREADABLE.search(complaint):
        column, value = found.groups()
        names = text.reading.header
        for line, cells, first in _lines(text):
            known = list(names or first)
            if value in (cells[known.index(column) :][:1] if column in known else cells):
                why = complaint.partition(" in column")[0]
                raise UserError(f"{text.path} line {line:,}: '{value}' in {column}: {why}. Nothing was written.")


class Misplaced(NamedTuple):
    """A quote that does not enclose a cell."""

    line: int
    error: UserError


def first_misplaced(text: Text, *, harmful: bool) -> Misplaced | None:
    """The first of the file's quotes that does not enclose a cell; `harmful` as `misplaced` has it."""
    lines = 0
    if text.parsed_quote == "none":
        return None
    for block in text.blocks(BLOCK):
        place = misplaced(block.text, block.separator, text.parsed_quote.encode(), harmful=harmful)
        if place is not None:
            line = lines + block.text.count(b"\n", 0, place) + 1
            start = block.text.rfind(b"\n", 0, place) + 1
            said = block.text[start:].partition(b"\n")[0].decode("utf-8", "replace").strip()
            error = f"{text.path} line {line:,}: a quote does not enclose a cell: {said[:LONGEST]}"
            return Misplaced(line, UserError(f"{error}\n{cure_of_quotes(text.reading)}"))
        lines += count(block.text, b"\n")
    return None


def _cure(text: Text, cells: list[str]) -> str:
    """What may help a line with too many or too few cells."""
    if not cells:
        return " (a blank line: take it out)"
    return " (quotes are read as text: set quote to change that)" if text.reading.quote == "none" else ""


def _lines(text: Text) -> Generator[tuple[int, list[str], list[str]]]:
    """Number and cells of each line, and the first one's cells; a UserError where no text can be read."""
    before, first = 0, list[str]()
    for block in text.blocks(BLOCK):
        try:
            for line, cells in block.cells(text.parsed_quote):
                if first or cells:
                    first = first or cells
                    yield before + line, cells, first
        except UnicodeDecodeError as error:
            raise text.undecodable(block.text, error, before) from error
        except csv.Error as error:
            raise UserError(f"{text.path} after line {before:,}: {error}. Nothing was written.") from error
        before += count(block.text, b"\n")


def _names_columns(cells: list[str]) -> bool:
    """Whether a line can be a header: different words, no numbers. A row of a file without one can occur twice."""
    return len(set(cells)) == len(cells) and not any(re.fullmatch(r"[-+.\d]+", cell) for cell in cells)
