"""What a file is, by its first bytes: a format that is read, or something else that is named for what it is."""

import bz2
import codecs
import gzip
import io
import lzma
import os
import re
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import polars as pl

from fieldctr.data.reading import BLANKS, Reading
from fieldctr.errors import UserError

SAMPLE = 1 << 22  # bytes of a file from which its quotes and its line ends are told
FIRST = 1 << 12  # bytes that tell everything else
BROKEN = (EOFError, OSError, zlib.error, lzma.LZMAError)  # what a file that was cut short, or is damaged, raises
PACKINGS = {  # how a compressed file begins
    b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\0": "xz",
    **{b"BZh%d1AY&SY" % level: "bzip2" for level in range(1, 10)},
}  # fmt: skip
ZLIB = re.compile(rb"x[\x01\x5e\x9c\xda]")  # less sure: a text can begin so
BINARY = {"parquet": re.compile(rb"PAR1(?![ -~])"), "arrow": re.compile(rb"ARROW1\0\0|\xff\xff\xff\xff")}
STREAM = b"\xff\xff\xff\xff"  # of Arrow batches, without the index of a file
MARKS = {  # of an encoding; the longer before the one that it begins with
    codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
REWRITE = "Write it as Parquet or CSV."
AGAIN = "A download that failed leaves one: get the file again."
STRANGERS = tuple(  # how a file begins, what it is, what to do
    (re.compile(pattern, re.DOTALL), what, cure)
    for pattern, what, cure in (
        (rb"\x89HDF\r\n\x1a\n", "HDF5", "Write it as Parquet, with pandas: read_hdf(...).to_parquet(...)."),
        (
            rb"\x80[\x02-\x05][\x95}\](c\x8cKGJX]",
            "a pickle",
            "Write it as Parquet, with pandas: read_pickle(...).to_parquet(...).",
        ),
        (
            rb"SQLite format 3\0",
            "an SQLite database",
            "Write the table as CSV: sqlite3 -header -csv FILE 'select ...'.",
        ),
        (rb"ORC[^ -~]", "ORC", REWRITE),
        (rb"Obj\x01", "Avro", REWRITE),
        (rb"FEA1", "Feather in its first version", "Write it again, with pandas: read_feather(...).to_parquet(...)."),
        (rb"\x93NUMPY", "a NumPy array", REWRITE),
        (rb"PK\x03\x04.*xl/", "an Excel workbook", "Save it as CSV."),
        (rb"PK\x03\x04.*\.npy", "a NumPy archive", REWRITE),
        (rb"PK\x03\x04", "a zip archive", "Unpack it."),
        (rb"\xd0\xcf\x11\xe0", "an Excel workbook", "Save it as CSV."),
        (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it."),
        (rb"Rar!\x1a", "a RAR archive", "Unpack it."),
        (rb".{257}ustar", "a tar archive", "Unpack it."),
        (rb"%PDF-", "a PDF", REWRITE),
        (rb"MATLAB \d", "a file of MATLAB", REWRITE),
        (rb"version https://git-lfs", "a pointer of Git LFS, not the file", "Run git lfs pull."),
        (rb"(?i:\s*<(!doctype html|html))", "an HTML page", AGAIN),
        (rb"\s*<\?xml", "XML", REWRITE),
    )
)
OBJECT = re.compile(r'\s*\{\s*["}]')
ARRAY = re.compile(r"\s*\[\s*\{")
SPARSE = re.compile(r"[-+]?[\d.]+(e[-+]?\d+)?([ \t]+[^\s:,;|]+(:[^\s:,;|]+){1,2})+\s*(#.*)?", re.IGNORECASE)


KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
MISSING, FOLDER = "is missing", "is a folder"


class Content(NamedTuple):
    """What the first bytes of a file tell."""

    packing: str  # "", or how the file is compressed
    start: bytes  # SAMPLE bytes of what is inside
    format: str  # csv, parquet, jsonl, arrow or libsvm
    encoding: str  # of text


def obstacle(path: Path) -> str:
    """What keeps a path from being read as a file, such as MISSING or FOLDER; "" if nothing does. It is not opened."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return "is a link that leads nowhere" if path.is_symlink() else MISSING
    except OSError as error:  # a name that is too long, a link to itself, a folder that is not ours
        return f"cannot be reached: {error.strerror}"
    if not stat.S_ISREG(mode):
        return f"is {KINDS.get(stat.S_IFMT(mode), 'a device')}"
    return "" if os.access(path, os.R_OK) else "cannot be read: Permission denied"


def refuse_unreadable_path(path: Path) -> None:
    """UserError for what is no regular file: reading a pipe or a device may never end."""
    why = obstacle(path)
    if why:
        cure = " Write its rows to a file." if why.endswith(("pipe", "socket", "device")) else ""
        raise UserError(f"{path} {why}.{cure} Nothing was written.")
    if any("\ud800" <= letter <= "\udfff" for letter in str(path)):
        raise UserError(f"{path}: its name is no UTF-8, and polars opens no other. Rename it.")


def content(path: Path, reading: Reading) -> Content:
    """What a file is; UserError, in one sentence, for one that is not read."""
    refuse_unreadable_path(path)
    with path.open("rb") as file:
        packing = packing_of(file.read(FIRST))
    start = _start(path, packing)
    if not start.strip():
        raise UserError(f"{path} is empty. Nothing was written.")
    refuse_strangers(path, start)
    binary = next((kind for kind, mark in BINARY.items() if mark.match(start)), "")
    if binary and packing:
        raise UserError(f"{path} is {binary.capitalize()} inside {packing}: decompress it. Nothing was written.")
    encoding = "" if binary else _encoding(path, start, reading)
    kind = binary or _text_format(path, start[:FIRST].decode(encoding, "replace"), reading)
    if reading.format not in ("auto", kind):
        if binary or reading.format in BINARY:
            raise UserError(f"{path} is {kind}, not what format={reading.format} says. Nothing was written.")
        kind = reading.format
    return Content(packing, start, kind, encoding)


def _start(path: Path, packing: str) -> bytes:
    """SAMPLE bytes of a file, or what can be read of a broken one: who reads on finds the line."""
    pieces, size = list[bytes](), 0
    try:
        with opened(path, packing) as file:
            while size < SAMPLE and (piece := file.read(1 << 16)):
                pieces.append(piece)
                size += len(piece)
    except BROKEN as error:
        if not pieces:
            raise UserError(f"{path} after line 0: {error}. Nothing was written.") from error
    return b"".join(pieces)


def packing_of(start: bytes) -> str:
    """How a file that begins so is compressed, or ""."""
    for mark, name in PACKINGS.items():
        if start.startswith(mark):
            return name
    return "zlib" if ZLIB.match(start) and _inflates(start) else ""


def _inflates(start: bytes) -> bool:
    try:
        return bool(zlib.decompressobj().decompress(start, 64))
    except zlib.error:
        return False


def opened(path: Path, packing: str | None = None) -> BinaryIO:
    """The bytes of a file, decompressed, whatever the file is called."""
    if packing is None:
        with path.open("rb") as file:
            packing = packing_of(file.read(FIRST))
    if packing == "gzip":
        return cast(BinaryIO, gzip.open(path, "rb"))
    if packing == "bzip2":
        return cast(BinaryIO, bz2.open(path, "rb"))
    if packing == "xz":
        return cast(BinaryIO, lzma.open(path, "rb"))
    if packing:
        return io.BufferedReader(_Pieces({"zlib": _inflated, "zstd": _lines_of_zstd}[packing](path)))
    return path.open("rb")


class _Pieces(io.RawIOBase):
    """A stream of what an iterator of bytes gives."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces, self.rest = pieces, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # ty: ignore[incompatible-method-override]
        while not len(self.rest):
            piece = next(self.pieces, None)
            if piece is None:
                return 0
            self.rest = memoryview(piece)
        size = min(len(buffer), len(self.rest))
        buffer[:size], self.rest = self.rest[:size], self.rest[size:]
        return size


def _inflated(path: Path) -> Iterator[bytes]:
    stream = zlib.decompressobj()
    with path.open("rb") as file:
        while piece := file.read(1 << 18):
            yield stream.decompress(piece)
    yield stream.flush()
    if not stream.eof:
        raise EOFError("Compressed file ended before the end-of-stream marker was reached")


def _lines_of_zstd(path: Path) -> Iterator[bytes]:
    """Python 3.11 has no zstd, polars has; it gives lines, so that \\r\\n inside a quoted cell becomes \\n."""
    try:
        for batch in pl.scan_lines(path, glob=False).collect_batches(chunk_size=1 << 14):
            yield "\n".join(batch.to_series()).encode() + b"\n"
    except pl.exceptions.PolarsError as error:
        if "utf" not in str(error).lower():
            raise EOFError(str(error)) from error
        line = _undecodable_line_of_zstd(path)
        raise UserError(f"{path} line {line:,} is no UTF-8 inside zstd. Decompress it, and set encoding.") from error


def _undecodable_line_of_zstd(path: Path) -> int:
    lines = pl.scan_csv(
        path, has_header=False, separator="\x1e", quote_char=None, encoding="utf8-lossy", schema={"text": pl.String},
        truncate_ragged_lines=True, glob=False,
    ).with_row_index("line", 1)  # fmt: skip
    bad = lines.filter(pl.col("text").str.contains("\ufffd", literal=True))  # what a byte that is no UTF-8 becomes
    return bad.select("line").head(1).collect().item()


def refuse_strangers(path: Path, start: bytes) -> None:
    """UserError for a file that begins like a format that is not read."""
    for mark, what, cure in STRANGERS:
        if mark.match(start):
            raise UserError(f"{path} is {what}. {cure}")


def _encoding(path: Path, start: bytes, reading: Reading) -> str:
    """The encoding that the reading says, else the byte order mark; a start that is no text is refused."""
    marked = next((name for mark, name in MARKS.items() if start.startswith(mark)), None)
    if reading.encoding != "auto" or marked:
        return marked or "utf-8" if reading.encoding == "auto" else reading.encoding
    even, odd = (part.count(b"\0") / max(len(part), 1) for part in (start[:FIRST:2], start[1:FIRST:2]))
    if max(even, odd) > 0.6 and min(even, odd) < 0.1:
        name = "utf-16-le" if odd > even else "utf-16-be"
        raise UserError(f"{path} looks like UTF-16 without a byte order mark. Set encoding: {name}")
    if b"\0" in start[:FIRST]:
        raise UserError(f"{path} is neither text nor a format that is read, but binary. {REWRITE}")
    return "utf-8"


def _text_format(path: Path, text: str, reading: Reading) -> str:
    """jsonl, libsvm or csv, as the text begins."""
    if reading.format == "auto" and ARRAY.match(text):
        raise UserError(f"{path} is one JSON array. Write one object per line: jq -c '.[]' {path.name}")
    if reading.header is None and OBJECT.match(text.removeprefix("\ufeff")):
        return "jsonl"
    lines = [line for line in text.splitlines()[: -1 if len(text) >= FIRST // 4 else None] if line.strip()][:20]
    cut = reading.header is not None or not reading.separator.strip() or reading.separator == BLANKS
    sparse = not cut and lines and all(SPARSE.fullmatch(line) and reading.separator not in line for line in lines)
    return "libsvm" if sparse else "csv"
