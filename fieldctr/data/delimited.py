"""Delimited text as lazy frames of text."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from fieldctr.data.bad_lines import explained
from fieldctr.data.columns import column, refuse_own
from fieldctr.data.lines import Block, Text, as_text
from fieldctr.data.reading import Reading
from fieldctr.data.streams import streamed
from fieldctr.errors import UserError

OTHERS = (",", "\t", ";", "|", "::")  # separators that a header may have been meant to be cut by
LONGEST_NAME = 1000  # characters
PARSED = 1 << 21  # bytes that polars gets at a time where the file is rewritten


def scan_csv(
    path: Path, *, separator: str = ",", header: Sequence[str] | None = None, row: str | None = None
) -> pl.LazyFrame:
    """All columns of a file with double quotes as text."""
    text = as_text(path, Reading(format="csv", separator=separator, header=header, quote='"'))
    assert text, "format is csv"
    return scan_delimited(text, row)


def scan_delimited(text: Text, row: str | None = None) -> pl.LazyFrame:
    """All columns as text: what a number is, its field decides.

    The first line is the header, unless the reading names the columns. `row` names one more column, the last, for the
    rows' numbers: a scan that counts them itself can start at any row for a tenth of what reading up to it costs.
    Refuses two columns of one name and a header that the separator does not cut.
    """
    first, header = text.header(), text.reading.header
    if header is None:
        _refuse_header(text, first)
    elif len(header) != len(first):
        raise UserError(f"{text.path} line 1: {len(first)} columns, expected {len(header)}, those of source.header.")
    names = list(first if header is None else header)
    return _scan_plain(text, names, row) if text.plain else _scan_rewritten(text, names, row)


def _scan_plain(text: Text, names: list[str], row: str | None) -> pl.LazyFrame:
    with explained((text.path,), readings={text.path: text.reading}):
        frame = pl.scan_csv(
            text.path, separator=text.reading.separator, has_header=text.reading.header is None, infer_schema=False,
            quote_char=None if text.quote == "none" else text.quote, empty_string_is_null=False, glob=False,
            row_index_name=row,
        )  # fmt: skip
        found = [name for name in frame.collect_schema() if name != row]
    if len(found) != len(names):
        raise UserError(
            f"{text.path} line 1: polars reads {len(found)} columns, expected {len(names)}. Set quote: none"
        )
    if found != names:
        frame = frame.rename(dict(zip(found, names, strict=True)))
    return frame.select(*map(column, names), row) if row else frame


def _scan_rewritten(text: Text, names: list[str], row: str | None) -> pl.LazyFrame:
    def batches(columns: list[str] | None) -> Iterator[pl.DataFrame]:
        skip = int(text.reading.header is None)
        for block in text.blocks(PARSED):
            yield _parsed(block, text.parsed_quote, names, skip)
            skip = 0

    return streamed(pl.Schema(dict.fromkeys(names, pl.String)), batches, row)


def _parsed(block: Block, quote: str, names: list[str], skip: int) -> pl.DataFrame:
    frame = pl.read_csv(
        block.text.lstrip(b"\r\n") if skip else block.text, separator=block.separator.decode("latin-1"),
        quote_char=None if quote == "none" else quote, has_header=False, skip_rows=skip, raise_if_empty=False,
        schema=dict.fromkeys(names, pl.String), empty_string_is_null=False, glob=False,
    )  # fmt: skip
    for mark, meaning in block.marks.items():
        frame = frame.with_columns(pl.all().str.replace_all(mark, meaning, literal=True))
    return frame


def _refuse_header(text: Text, names: list[str]) -> None:
    path, separator = text.path, text.reading.separator
    if longest := max((name for name in names if len(name) > LONGEST_NAME), default=""):
        raise UserError(f"{path} line 1: a column's name has {len(longest):,} characters. Is this the header?")
    duplicates = [name for name in names if names.count(name) > 1]
    if duplicates:
        raise UserError(f"{path}: two columns are called '{duplicates[0]}'. Rename one in the header.")
    refuse_own(names, path)
    meant = [other for other in OTHERS if len(names) == 1 and other in names[0]]
    if meant:
        raise UserError(
            f"{path}: the separator {separator!r} does not cut its header {names[0][:60]!r}. Set separator, such as "
            f"{meant[-1]!r}."
        )
