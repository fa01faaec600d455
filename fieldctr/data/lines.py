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
from fieldctr.data.quotes import cure_of_quotes, encloses, misplaced
from fieldctr.data.reading import BACKSLASH, BLANKS, Reading
from fieldctr.errors import UserError

MOST_OPEN = 1 << 26  # bytes that a quoted cell may go on for
RARE = bytes([*range(0x1C, 0x20), *range(1, 9), *range(0x0E, 0x1C)])  # stand for what is more than a byte
MOST_QUOTES = 0.9  # share of the quotes: where so many enclose cells, all are meant to
TAIL = 1 << 12  # bytes at the end of a file where blank lines are looked for
HEADER = 1 << 16  # bytes read at once for the first line
MOST_HEADER = 1 << 22  # bytes of it where it names the columns
LONE_RETURN = re.compile(r"\r(?!\n)")  # in a file whose lines end in \n it is text: the csv module would end a line
RETURN = "\ufdd0"  # stands for one; no text has this character

csv.field_size_limit(MOST_OPEN)


class Block(NamedTuple):
    """Whole lines, none of which ends inside quotes."""

    text: bytes
    separator: bytes
    marks: Mapping[str, str] = {}  # characters that stand for others in the cells

    def cells(self, quote: str) -> Iterator[tuple[int, list[str]]]:
        """Number, from 1 for the block's first, and cells of each line; where a row has several, that of its first."""
        text = LONE_RETURN.sub(RETURN, self.text.decode())
        reader = csv.reader(
            io.StringIO(text, newline="\n"), delimiter=self.separator.decode("latin-1"),
            quotechar=None if quote == "none" else quote,
            quoting=csv.QUOTE_NONE if quote == "none" else csv.QUOTE_MINIMAL,
        )  # fmt: skip
        line, marks = 1, {**self.marks, RETURN: "\r"} if RETURN in text else self.marks
        for cells in reader:
            yield line, [_restored(cell, marks) for cell in cells] if marks else cells
            line = reader.line_num + 1


def _restored(cell: str, marks: Mapping[str, str]) -> str:
    """A cell with what its marks stand for."""
    for mark, meaning in marks.items():
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
        return cls(
            path, reading, found.packing, b"\r" if b"\r" in start and _ends_in_returns(start, reading) else b"\n"
        )

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
            size = len(block.text.lstrip(b"\r\n").partition(b"\n")[0])
            if self.reading.header is None and size > MOST_HEADER:
                raise UserError(f"{self.path} line 1: {size:,} bytes, and no header has so many. Nothing was written.")
            try:
                for _, cells in block.cells(self.parsed_quote):
                    if cells:
                        return cells
            except UnicodeDecodeError as error:
                raise self.undecodable(block.text, error, 0) from error
        return []

    def blocks(self, size: int) -> Generator[Block]:
        """The file in blocks of about `size` bytes, without blank lines at its end."""
        lines, pending, is_open = 0, list[bytes](), False
        try:
            for part in self._without_blank_end(size):
                pending.append(part)
                block = _rewritten(part, self.reading)
                is_open ^= self._has_odd_quotes(block)
                if not is_open:
                    yield block if len(pending) == 1 else _rewritten(b"".join(pending), self.reading)
                    lines, pending = lines + sum(count(part, b"\n") for part in pending), []
                elif sum(map(len, pending)) > MOST_OPEN:
                    raise self._unclosed(_rewritten(b"".join(pending), self.reading), lines)
            if pending:
                yield _rewritten(b"".join(pending), self.reading)
        except BROKEN as error:
            raise UserError(f"{self.path} after line {lines:,}: {error}. Nothing was written.") from error

    def _has_odd_quotes(self, block: Block) -> bool:
        quote = self.parsed_quote.encode()
        return quote != b"none" and quote in block.text and count(block.text, quote) % 2 == 1

    def _unclosed(self, block: Block, lines: int) -> UserError:
        place = misplaced(block.text, block.separator, self.parsed_quote.encode(), harmful=True) or 0
        line = lines + block.text.count(b"\n", 0, place) + 1
        return UserError(f"{self.path} line {line:,}: a quote is not closed. {cure_of_quotes(self.reading)}")

    def _endless(self) -> UserError:
        return UserError(f"{self.path} has a line of more than {MOST_OPEN >> 20} MB. Nothing was written.")

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
                rest = file.readline(MOST_OPEN)
                if len(rest) == MOST_OPEN:
                    raise self._endless()
                yield start + rest
                start = file.read(size)

    def _decoded(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        decoder = codecs.getincrementaldecoder(self.reading.encoding)()
        ready, rest, lines, first = "", "", 0, True  # `ready` waits for a last line without end
        for piece in chain(pieces, (None,)):
            try:
                text = rest + decoder.decode(piece or b"", final=piece is None)
            except UnicodeDecodeError as error:
                before = rest + error.object[: error.start].decode(self.reading.encoding, "ignore")
                known = before.replace("\r", "\n") if self.endings == b"\r" else before
                raise self.undecodable(b"", error, lines + known.count("\n")) from error
            text = text.removeprefix("\ufeff") if first else text
            text = text.replace("\r", "\n") if self.endings == b"\r" else text
            cut = text.rfind("\n") + 1
            if cut and ready:
                yield ready.encode()
            ready, rest = text[:cut] or ready, text[cut:]
            if len(rest) > MOST_OPEN:
                raise self._endless()
            lines, first = lines + text.count("\n", 0, cut), first and not text
        if ready or rest:
            yield (ready + rest).encode()


def as_text(path: Path, reading: Reading, found: Content | None = None) -> Text | None:
    """A delimited file with what its start settles of `reading`; None for one of another format.

    `found` is its content, where the caller has looked already.
    """
    found = found or content(path, reading)
    if found.format != "csv":
        return None
    text = Text.of(path, replace(reading, format="csv", encoding=found.encoding), found)
    return text if reading.quote != "auto" else text._replace(reading=replace(text.reading, quote=told_quote(text)))


def _ends_in_returns(start: bytes, reading: Reading) -> bool:
    """Whether the first line ends in a lone \\r, and most do; in quotes a cell may have both."""
    if reading.quote != "none":
        start = b"".join(start.split(b'"' if reading.quote in ("auto", BACKSLASH) else reading.quote.encode())[::2])
    ends = start.replace(b"\r\n", b"\n")
    first = re.search(rb"[\r\n]", ends)
    return first is not None and first[0] == b"\r" and count(ends, b"\r") >= count(ends, b"\n")


def _before_blank_end(lines: bytes) -> int:
    text = len(lines.rstrip(b"\r\n"))
    return lines.index(b"\n", text) + 1 if text else 0


def count(block: bytes, character: bytes) -> int:
    """How often one byte is there."""
    return int(np.count_nonzero(np.frombuffer(block, np.uint8) == ord(character)))  # 5x bytes.count


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


def told_quote(text: Text) -> str:
    """The quoting that the start of a file shows: double quotes, backslash or none.

    Double quotes where each of them encloses a cell, or none is there; else backslash, if that is so for those which
    no backslash escapes; else none, if all lines then have equally many cells. But one quote too many among cells
    that are in quotes is a mistake.
    """
    bare = text._replace(reading=replace(text.reading, quote="none"))
    blocks = bare.blocks(SAMPLE)
    start = next(blocks, Block(b"", b","))
    sample, open_end = start.text, next(blocks, None) is not None
    if b'"' not in sample or encloses(sample, start.separator, open_end):
        return '"'
    unescaped = sample.replace(rb"\\", b"").replace(rb"\"", b"")
    if rb"\"" in sample and encloses(unescaped, start.separator, open_end):
        return BACKSLASH
    columns = None if text.reading.header is None else len(text.reading.header)
    if uneven(sample, start.separator, columns, line_ends(sample)):
        return '"'
    border = re.escape(start.separator)
    in_quotes = re.findall(rb'(?:^|(?<=%b))"[^"\n]*"(?=%b|\r?$)' % (border, border), sample, re.MULTILINE)
    return '"' if 2 * len(in_quotes) >= MOST_QUOTES * count(sample, b'"') else "none"


def uneven(text: bytes, separator: bytes, columns: int | None, ends: np.ndarray) -> bool:
    """Whether a line, of text without quotes, has another number of cells than `columns`, or than the first."""
    cuts = np.frombuffer(text, np.uint8) == ord(separator)
    each = np.count_nonzero(cuts[: ends[0]]) if columns is None else columns - 1
    if np.count_nonzero(cuts) != each * len(ends):
        return True
    starts = np.append(0, ends[:-1] + 1)
    kind = np.uint8 if each < 256 else np.uint32  # of bytes, the sums are modulo 256: twice the speed of exact ones
    return bool(each and (np.add.reduceat(cuts.view(np.uint8), starts, dtype=kind) != each).any())


def line_ends(text: bytes) -> np.ndarray:
    """Where the lines end, the last one too where no \\n ends it."""
    ends = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n"))
    return ends if text.endswith(b"\n") else np.append(ends, len(text))
