"""Delimited text in blocks of whole lines, in the one form that polars parses, whatever the file's own form is.

That form: UTF-8, one byte between the cells, line ends with \\n, quotes doubled where they are text. A file that is so
already passes byte by byte.
"""

import codecs
import csv
import io
import re
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fieldctr.data.formats import BROKEN, SAMPLE, Content, content, opened
from fieldctr.data.reading import BACKSLASH, BLANKS, Reading
from fieldctr.errors import UserError

MOST_OPEN = 1 << 26  # bytes that a quoted cell may go on for
RARE = bytes([*range(0x1C, 0x20), *range(1, 9), *range(0x0E, 0x1C)])  # stand for what is more than a byte
TAIL = 1 << 12  # bytes at the end of a file where blank lines are looked for
HEADER = 1 << 16  # bytes read at once for the first line

csv.field_size_limit(MOST_OPEN)


class Block(NamedTuple):
    """Whole lines, none of which ends inside quotes."""

    text: bytes
    separator: bytes
    marks: Mapping[str, str] = {}  # characters that stand for others in the cells

    def cells(self, quote: str) -> Iterator[tuple[int, list[str]]]:
        """Number, from 1 for the block's first, and cells of each line, that of its end where a cell has several."""
        text = io.StringIO(self.text.decode(), newline="")
        reader = csv.reader(
            text, delimiter=self.separator.decode("latin-1"), quotechar=None if quote == "none" else quote,
            quoting=csv.QUOTE_NONE if quote == "none" else csv.QUOTE_MINIMAL,
        )  # fmt: skip
        for cells in reader:
            yield reader.line_num, [self.restored(cell) for cell in cells] if self.marks else cells

    def restored(self, cell: str) -> str:
        """A cell with what its marks stand for."""
        for mark, meaning in self.marks.items():
            cell = cell.replace(mark, meaning)
        return cell


class Text(NamedTuple):
    """A delimited file and how it is written."""

    path: Path
    reading: Reading  # whose quote and encoding are settled
    packing: str
    endings: bytes  # of lines: \n, also for \r\n, or \r

    @classmethod
    def of(cls, path: Path, reading: Reading, found: Content) -> "Text":
        start = found.start
        if found.encoding.startswith(("utf-16", "utf-32")):
            start = start.decode(found.encoding, "ignore").encode()
        return cls(path, reading, found.packing, b"\r" if b"\r" in start and b"\n" not in start else b"\n")

    @property
    def plain(self) -> bool:
        """Whether polars reads the file as it is, and as it should be read."""
        simple = self.reading.encoding == "utf-8" and self.endings == b"\n" and not self.packing
        return simple and self.quote is not None and len(self.separator) == 1 and not self._ends_in_blank_lines()

    @property
    def separator(self) -> bytes:
        return self.reading.separator.encode()

    @property
    def quote(self) -> str | None:
        """The character, or none; None where it has to be rewritten first."""
        return None if self.reading.quote == BACKSLASH else self.reading.quote

    @property
    def parsed_quote(self) -> str:
        """The character, or none, in the blocks."""
        return self.quote or '"'

    def header(self) -> list[str]:
        """The cells of the first line that is not blank."""
        for block in self.blocks(HEADER):
            try:
                for _, cells in block.cells(self.parsed_quote):
                    if cells:
                        return cells
            except UnicodeDecodeError as error:
                raise self.undecodable(block.text, error, 0) from error
        return []

    def blocks(self, size: int) -> Generator[Block]:
        """The file in blocks of about `size` bytes, without blank lines at its end."""
        lines, pending = 0, b""
        try:
            for part in self._without_blank_end(size):
                pending = pending + part if pending else part
                block = _rewritten(pending, self.reading)
                if self._open(block):
                    if len(pending) > MOST_OPEN:
                        raise self.unclosed(lines)
                    continue
                yield block
                lines, pending = lines + count(pending, b"\n"), b""
            if pending:
                yield _rewritten(pending, self.reading)
        except BROKEN as error:
            raise UserError(f"{self.path} after line {lines:,}: {error}. Nothing was written.") from error

    def _open(self, block: Block) -> bool:
        quote = self.parsed_quote.encode()
        return quote != b"none" and quote in block.text and count(block.text, quote) % 2 == 1

    def unclosed(self, lines: int) -> UserError:
        return UserError(f"{self.path} after line {lines:,}: a quote is not closed. {cure_of_quotes(self.reading)}")

    def undecodable(self, text: bytes, error: UnicodeDecodeError, lines: int) -> UserError:
        """What to raise for bytes, behind so many lines, that are no text in the encoding."""
        line, byte = lines + text.count(b"\n", 0, error.start) + 1, error.object[error.start]
        name = self.reading.encoding.upper()
        return UserError(
            f"{self.path} line {line:,}: byte 0x{byte:02x} is no {name}. Set encoding, such as latin-1, cp1252 or "
            f"utf-16, if it is a text. Nothing was written."
        )

    def _ends_in_blank_lines(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(max(0, file.seek(0, io.SEEK_END) - TAIL))
            return re.search(rb"\n\r?\n\Z", file.read()) is not None

    def _without_blank_end(self, size: int) -> Iterator[bytes]:
        held = b""
        for part in self._utf8(size):
            lines = held + part if held else part
            held = b""
            if lines.endswith((b"\n\n", b"\n\r\n")) or not lines.strip(b"\r\n"):
                cut = _before_blank_end(lines)
                lines, held = lines[:cut], lines[cut:]
            if lines:
                yield lines

    def _utf8(self, size: int) -> Iterator[bytes]:
        """Whole lines in UTF-8, without a byte order mark, that end in \\n."""
        with opened(self.path, self.packing) as file:
            if self.reading.encoding != "utf-8" or self.endings != b"\n":
                yield from self._decoded(iter(lambda: file.read(size), b""))
                return
            start = file.read(size).removeprefix(codecs.BOM_UTF8)
            while start:
                yield start + file.readline()
                start = file.read(size)

    def _decoded(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        decoder = codecs.getincrementaldecoder(self.reading.encoding)()
        rest, lines, first = "", 0, True
        for piece in chain(pieces, (None,)):
            try:
                text = rest + decoder.decode(piece or b"", final=piece is None)
            except UnicodeDecodeError as error:
                before = rest + error.object[: error.start].decode(self.reading.encoding, "ignore")
                known = before.replace("\r", "\n") if self.endings == b"\r" else before
                raise self.undecodable(b"", error, lines + known.count("\n")) from error
            text = text.removeprefix("\ufeff") if first else text
            text = text.replace("\r", "\n") if self.endings == b"\r" else text
            cut = len(text) if piece is None else text.rfind("\n") + 1
            if cut:
                yield text[:cut].encode()
            rest, lines, first = text[cut:], lines + text.count("\n", 0, cut), first and not text


def as_text(path: Path, reading: Reading, found: Content | None = None) -> Text | None:
    """A delimited file with what its start settles of `reading`; None for one of another format.

    `found` is its content, where the caller has looked already.
    """
    found = found or content(path, reading)
    if found.format != "csv":
        return None
    text = Text.of(path, replace(reading, format="csv", encoding=found.encoding), found)
    return (
        text if reading.quote != "auto" else text._replace(reading=replace(text.reading, quote=told_quote(text, found)))
    )


def _before_blank_end(lines: bytes) -> int:
    text = len(lines.rstrip(b"\r\n"))
    return lines.index(b"\n", text) + 1 if text else 0


def count(block: bytes, character: bytes) -> int:
    """How often one byte is there."""
    return int(np.count_nonzero(np.frombuffer(block, np.uint8) == ord(character)))  # 5x bytes.count


def cure_of_quotes(reading: Reading) -> str:
    """What to do about quotes that do not enclose cells."""
    if reading.quote == "none":
        return "Nothing was written."
    return (
        "Where quotes are part of the text set quote: none; where a backslash escapes them, quote: backslash. "
        "Nothing was written."
    )


def _rewritten(lines: bytes, reading: Reading) -> Block:
    """Lines with marks for escaped characters, and one byte between cells."""
    rare, marks = _unused(lines), {}
    if reading.quote == BACKSLASH and b"\\" in lines:
        for character in ("\\", '"'):
            mark = next(rare)
            lines = lines.replace(b"\\" + character.encode(), mark)
            marks[mark.decode()] = character
    separator = reading.separator.encode()
    if len(separator) == 1:
        return Block(lines, separator, marks)
    mark = next(rare)
    quote = b"" if reading.quote == "none" else b'"' if reading.quote in (BACKSLASH, "auto") else reading.quote.encode()
    parts = lines.split(quote) if quote and quote in lines else [lines]
    parts[::2] = [_cut(part, reading.separator, mark) for part in parts[::2]]
    return Block(quote.join(parts), mark, marks)


def _cut(text: bytes, separator: str, mark: bytes) -> bytes:
    if separator != BLANKS:
        return text.replace(separator.encode(), mark)
    text = re.sub(rb"^[ \t]+|[ \t]+(?=\r?\n|\Z)", b"", text, flags=re.MULTILINE)
    return re.sub(rb"[ \t]+", mark, text)


def _unused(lines: bytes) -> Iterator[bytes]:
    """Bytes that are not in the lines."""
    for code in RARE:
        if code not in lines:
            yield bytes([code])
    raise UserError("the file has every control character, which leaves none to stand for its separator or escapes")


def told_quote(text: Text, found: Content) -> str:
    """The quoting that the start of a file shows: double quotes, backslash or none.

    Double quotes where each of them encloses a cell, or none is there; else backslash, if that is so for those which
    no backslash escapes; else none, if all lines then have equally many cells.
    """
    bare = text._replace(reading=replace(text.reading, quote="none"))
    start = next(bare.blocks(SAMPLE), Block(b"", b","))
    sample, open_end = start.text, len(found.start) >= SAMPLE
    if b'"' not in sample or _encloses(sample, start.separator, open_end):
        return '"'
    unescaped = sample.replace(rb"\\", b"").replace(rb"\"", b"")
    if rb"\"" in sample and _encloses(unescaped, start.separator, open_end):
        return BACKSLASH
    return '"' if uneven(sample, start.separator, None, line_ends(sample)) else "none"


def _encloses(text: bytes, separator: bytes, open_end: bool) -> bool:
    """Whether every quote begins or ends a cell, or is doubled."""
    begins, ends, odd = enclosing(text, separator, b'"')
    return bool(begins.all() and ends.all()) and (open_end or not odd)


def enclosing(text: bytes, separator: bytes, quote: bytes) -> tuple[np.ndarray, np.ndarray, bool]:
    """Which quotes that open stand at a cell's begin, which that close at its end; whether one is left over."""
    letters = np.frombuffer(b"\n" + text + b"\n", np.uint8)
    at = np.flatnonzero(letters == ord(quote))
    before, after = letters[at[::2] - 1], letters[at[1::2] + 1]
    borders = [ord(separator), ord("\n"), ord(quote)]
    return np.isin(before, borders), np.isin(after, [*borders, ord("\r")]), len(at) % 2 == 1


def uneven(text: bytes, separator: bytes, columns: int | None, ends: np.ndarray) -> bool:
    """Whether a line, of text without quotes, has another number of cells than `columns`, or than the first."""
    cuts = np.frombuffer(text, np.uint8) == ord(separator)
    each = np.count_nonzero(cuts[: ends[0]]) if columns is None else columns - 1
    if np.count_nonzero(cuts) != each * len(ends):
        return True
    starts = np.append(0, ends[:-1] + 1)  # of bytes, the sums are modulo 256: twice the speed of exact ones
    return bool(each and (np.add.reduceat(cuts.view(np.uint8), starts, dtype=np.uint8) != each % 256).any())


def line_ends(text: bytes) -> np.ndarray:
    """Where the lines end, the last one too where no \\n ends it."""
    ends = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n"))
    return ends if text.endswith(b"\n") else np.append(ends, len(text))
