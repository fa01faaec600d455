"""One raw file as a lazy frame, whatever its format; what it is, its bytes tell, not its name."""

import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import polars as pl

from fieldctr.data.bad_lines import explained, first_misplaced, reason
from fieldctr.data.columns import column, refuse_own
from fieldctr.data.delimited import scan_delimited
from fieldctr.data.fields.spelling import canonical, spelled, text_of
from fieldctr.data.formats import BINARY, STREAM, ZLIB, content
from fieldctr.data.json_lines import scan_json_lines
from fieldctr.data.libsvm import scan_libsvm
from fieldctr.data.lines import Text, as_text
from fieldctr.data.reading import Reading
from fieldctr.errors import UserError

SPELLED_OTHERWISE = re.compile(r"^-?[\d.]|^true$|^false$", re.IGNORECASE)  # numbers and booleans


def scan(path: Path, reading: Reading, *, row: str | None = None) -> pl.LazyFrame:
    """The raw columns of a file, with null for what `reading.null_values` names.

    `row` names one more column, the last, for the rows' numbers.
    """
    reading = settled((path,), reading)[path]
    with explained((path,), readings={path: reading}):
        frame = _scan(path, reading, row)
        names = frame.collect_schema()
    refuse_own([name for name in names if name != row], path)
    return with_nulls(frame, reading.null_values, but=row)


def settled(paths: Sequence[Path], reading: Reading) -> dict[Path, Reading]:
    """What `auto` in `reading` means for each file; one quoting for all of them. UserError for what is not read."""
    found = {path: _settled(path, reading) for path in paths}
    quotes = {own.quote for own in found.values() if own.format == "csv"} - {'"'}
    if reading.quote != "auto" or not quotes:
        return found
    if len(quotes) > 1:
        raise UserError(
            f"{paths[0].parent}: the files differ in what quotes mean. Set quote: {' or '.join(sorted(quotes))}"
        )
    (quote,) = quotes
    odd = next(path for path, own in found.items() if own.quote == quote)
    text = as_text(odd, replace(found[odd], quote='"'))
    first = first_misplaced(text, harmful=False) if text else None
    line = f", the first in line {first.line:,}" if first else ""
    say(f"{odd} has quotes that do not enclose cells{line}: read with quote: {quote}")
    return {path: replace(own, quote=quote) if own.format == "csv" else own for path, own in found.items()}


def _settled(path: Path, reading: Reading) -> Reading:
    found = content(path, reading)
    text = as_text(path, reading, found)
    if text:
        _refuse_false_zlib(text)
        return text.reading
    return replace(reading, format=found.format, encoding=found.encoding or "auto")


def _refuse_false_zlib(text: Text) -> None:
    """polars takes a text that begins like a zlib stream for one."""
    with text.path.open("rb") as file:
        start = file.read(2)
    if not text.packing and ZLIB.fullmatch(start):
        raise UserError(f"{text.path} begins with {start!r}, as zlib does, and is none. Rename its first column.")


@cache
def say(text: str) -> None:
    """Tell the user, once."""
    print(f"fieldctr: {text}", file=sys.stderr)


def _scan(path: Path, reading: Reading, row: str | None) -> pl.LazyFrame:
    if reading.format in BINARY:
        return _numbered(_scan_binary(path, reading.format), row)
    found = content(path, reading)
    if reading.format == "jsonl":
        return scan_json_lines(path, reading, row)
    if reading.format == "libsvm":
        return scan_libsvm(path, reading, found.packing, row)
    text = as_text(path, reading, found)
    assert text, "the other formats are done with"
    return scan_delimited(text, row)


def _scan_binary(path: Path, kind: str) -> pl.LazyFrame:
    try:
        parquet = kind == "parquet"
        frame = pl.scan_parquet(path, glob=False, hive_partitioning=False) if parquet else _scan_arrow(path)
        frame.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        why = reason(error)
        raise UserError(
            f"{path} begins like {kind}, and cannot be read: {why}. Is it whole? Nothing was written."
        ) from error
    return frame


def _scan_arrow(path: Path) -> pl.LazyFrame:
    with path.open("rb") as file:
        if file.read(len(STREAM)) != STREAM:
            return pl.scan_ipc(path, glob=False)
    schema = pl.read_ipc_stream(path, n_rows=0).schema
    return pl.defer(lambda: pl.read_ipc_stream(path), schema=schema)  # held in memory: polars cannot stream it


def _numbered(frame: pl.LazyFrame, row: str | None) -> pl.LazyFrame:
    if not row:
        return frame
    names = list(frame.collect_schema())
    return frame.with_row_index(row).select(*map(column, names), row)


def with_nulls(frame: pl.LazyFrame, texts: Sequence[str], but: str | None = None) -> pl.LazyFrame:
    """Null for each cell whose text is one of `texts`, however spelled; lists stay, and so does the column `but`."""
    if not texts:
        return frame
    plain = [text_of(text) for text in texts]
    by_number = any(SPELLED_OTHERWISE.search(text) for text in (*texts, *plain))
    return frame.with_columns(
        pl.when(~_among(name, dtype, list(texts), plain, by_number)).then(column(name)).alias(name)
        for name, dtype in frame.collect_schema().items()
        if name != but and not dtype.is_nested()
    )


def _among(name: str, dtype: pl.DataType, texts: list[str], plain: list[str], by_number: bool) -> pl.Expr:
    """`by_number` says that one value can be spelled in several ways, and costs a look at every text."""
    text = spelled(column(name), dtype)
    same = canonical(text) if by_number or dtype != pl.String else text
    return (same.is_in(plain) | text.is_in(texts)).fill_null(False)
