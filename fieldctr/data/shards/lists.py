"""Raw cells of multi-valued fields to texts and codes: one flat column of all values of some rows.

A list comes as a list of the file, as several columns, or as a text: values with a separator between them, or what
Python, numpy and JSON print for a list: a text that begins with [ and ends with ]. Of that, the brackets and the quotes
around the values are no part of them, a comma separates besides the separator, and neither does inside quotes. A pair
of parentheses around a comma and braces without a colon are read so too. Where a further bracket stands outside the
quotes the text is taken as it is: '[a], [b]' are two values.
"""

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np
import polars as pl

from fieldctr.data.columns import OWN, column
from fieldctr.data.fields.kinds import FieldSpec, Spec, raw_specs
from fieldctr.data.fields.spelling import NULL_WORDS, canonical, spelled
from fieldctr.data.shards.dictionary import Dictionary
from fieldctr.data.shards.ragged import Ragged
from fieldctr.errors import UserError, listing, nearest

TYPICAL = 8  # values of a row that memory is planned for; rows with more are read fewer at a time
LEAST = 1 << 16  # values that are read at a time in any case
LETTERS = 4  # bytes of a text that stand for a value of it
QUOTED = r"'(?:[^'\\]|\\.)*'|" + r'"(?:[^"\\]|\\.)*"'
OPENING = r"^\s*[\[({]"
LIST = r"(?s)^\[[^\[\]]*\]$|^\([^()]*,[^()]*\)$|^\{[^{}:]*\}$"  # once the quoted parts are taken out
NESTED = r"(?s)^\[\s*[\[({].*[\])}]\s*\]$"


class Coded(NamedTuple):
    """The codes of some rows of a field."""

    codes: Ragged
    cut: np.ndarray  # (n,) int64, values that were one too many
    null_words: np.ndarray  # (n,) int64, values that say that there is none


def resolved(specs: Sequence[Spec], table: Sequence[str]) -> tuple[Spec, ...]:
    """The specs with the table's columns in the place of patterns; UserError for a pattern that matches none."""
    listed = {spec.name: _named(spec, table) for spec in raw_specs(specs) if spec.kind == "multi" and spec.columns}
    return tuple(listed.get(spec.name, spec) for spec in specs)


def _named(spec: FieldSpec, table: Sequence[str]) -> FieldSpec:
    names: list[str] = []
    for name in spec.columns:
        found = [one for one in table if fnmatchcase(one, name) and not one.startswith(OWN)]
        if name not in table and not found:
            raise UserError(
                f"dataset.fields.{spec.name}.columns: no column is called or matches '{name}'. "
                f"{nearest(name, table)}{listing(table)}"
            )
        names += [name] if name in table else found
    return replace(spec, columns=tuple(dict.fromkeys(names)), column=names[0])


def cells(spec: FieldSpec, schema: Mapping[str, pl.DataType]) -> pl.Expr:
    """The lists of the rows as they stand in the table: a list, or a text. UserError for lists of lists."""
    for name in spec.reads:
        _refuse_type(spec, name, schema[name])
    if spec.columns:
        return pl.concat_list([spelled(column(name), schema[name]).fill_null("") for name in spec.columns])
    dtype, raw = schema[spec.column], column(spec.column)
    if isinstance(dtype, pl.Array):
        return raw.arr.to_list()
    return raw if isinstance(dtype, pl.List) else spelled(raw, dtype)


def _refuse_type(spec: FieldSpec, name: str, dtype: pl.DataType) -> None:
    listed = isinstance(dtype, pl.List | pl.Array)
    inner = dtype.inner if isinstance(dtype, pl.List | pl.Array) else dtype
    if listed and spec.columns:
        raise UserError(f"field '{spec.name}': column '{name}' holds {dtype}. Each of `columns` needs plain values.")
    if isinstance(inner, pl.List | pl.Array | pl.Struct | pl.Binary | pl.Object):
        raise UserError(
            f"field '{spec.name}': column '{name}' holds {dtype}. Expected texts, or lists of plain values."
        )


def coded(spec: FieldSpec, dictionary: Dictionary, column: pl.Series) -> Coded:
    """The codes of the values of the rows: blanks and padding left out, and what is more than `max_length`."""
    parts = [_cut(*_coded(spec, dictionary, rows), spec) for rows in _pieces(column)]
    if len(parts) == 1:
        return parts[0]
    codes = Ragged(*(np.concatenate(arrays) for arrays in zip(*(part.codes for part in parts), strict=True)))
    return Coded(codes, *(np.concatenate(arrays) for arrays in zip(*(part[1:] for part in parts), strict=True)))


def _pieces(column: pl.Series) -> Iterator[pl.Series]:
    """The rows in pieces of at most TYPICAL values each in the mean, or of one row: long lists need no more memory."""
    sizes = column.list.len() if column.dtype == pl.List else column.str.len_bytes() // LETTERS
    ends = sizes.fill_null(0).cast(pl.Int64).cum_sum().to_numpy()
    most, start = max(TYPICAL * len(column), LEAST), 0
    if not len(column) or ends[-1] <= most:
        yield column
        return
    while start < len(column):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + most, "right")))
        yield column[start:stop]
        start = stop


def _coded(spec: FieldSpec, dictionary: Dictionary, column: pl.Series) -> tuple[Ragged, np.ndarray]:
    """The codes of all values, and per row how many words for no value there are (n,)."""
    texts, lengths = _texts(spec, column)
    known, words = (texts != "").fill_null(False), np.zeros(len(lengths), np.int64)
    if spec.null_words and (null := texts.is_in(NULL_WORDS).fill_null(False)).any():
        known &= ~null
        words = np.bincount(np.repeat(np.arange(len(lengths)), lengths)[null.to_numpy()], minlength=len(lengths))
    if spec.padding:
        known &= ~texts.is_in(list(spec.padding))
    found = Ragged(np.empty(len(texts), np.uint32), lengths)
    if not known.all():
        found, texts = found.kept(known.to_numpy()), texts.filter(known)
    found = found._replace(values=dictionary.code(texts))
    if spec.shares or int(found.lengths.max(initial=0)) < 2:
        return found, words
    pair = found.rows * (int(found.values.max()) + 1) + found.values  # a code is one text, so a pair one value of a row
    first = pl.Series(pair).is_first_distinct()
    return (found if first.all() else found.kept(first.to_numpy())), words


def _cut(found: Ragged, null_words: np.ndarray, spec: FieldSpec) -> Coded:
    more = np.maximum(found.lengths.astype(np.int64) - spec.max_length, 0)
    if not more.any():
        return Coded(found, more, null_words)
    first = np.repeat(more if spec.keep == "last" else np.zeros_like(more), found.lengths)
    positions = found.positions - first
    return Coded(found.kept((positions >= 0) & (positions < spec.max_length)), more, null_words)


def _texts(spec: FieldSpec, column: pl.Series) -> tuple[pl.Series, np.ndarray]:
    """All values as they are spelled, and per row how many there are."""
    listed = _as_printed(spec, column) if column.dtype == pl.String else None
    if column.dtype == pl.String:
        column = column.str.split(spec.separator)
    if listed is not None:
        column = column.zip_with(listed.is_null(), listed)
    lengths = column.list.len().fill_null(0).to_numpy().astype(np.int64)
    flat = column.explode(empty_as_null=False, keep_nulls=False).rename("value")
    if listed is not None:
        printed = np.repeat(listed.is_not_null().to_numpy(), lengths)
        flat = flat.zip_with(pl.Series(~printed), _unquoted(flat.set(pl.Series(~printed), ""), spec.separator))
    said = spelled(pl.col("value"), flat.dtype).str.strip_chars()
    return flat.to_frame().select(canonical(said)).to_series(), lengths


def _as_printed(spec: FieldSpec, column: pl.Series) -> pl.Series | None:
    """The parts, quoted as they are, of the texts that print a list; null for the others. None where no text does."""
    if not column.str.contains(OPENING).any():
        return None
    stripped = column.str.strip_chars()
    bare = stripped.str.replace_all(QUOTED, "")
    if (nested := bare.str.contains(NESTED)).any():
        raise UserError(
            f"field '{spec.name}': column '{spec.column}' holds {column.filter(nested)[0]}, a list of lists or of "
            "objects. Expected plain values."
        )
    inside = stripped.set(~bare.str.contains(LIST).fill_null(False), None).str.slice(1).str.head(-1)
    return inside.str.extract_all(rf"(?s)\s*(?:{QUOTED}|.*?)\s*(?:{_ends(spec.separator)}|$)")


def _ends(separator: str) -> str:
    return f",|{re.escape(separator)}"


def _unquoted(parts: pl.Series, separator: str) -> pl.Series:
    """Parts of printed lists without the separator behind them and the quotes around them."""
    text = r"'((?:[^'\\]|\\.)*)'|" + r'"((?:[^"\\]|\\.)*)"|(.*?)'
    plain = parts.str.replace(rf"(?s)^\s*(?:{text})\s*(?:{_ends(separator)})?$", "${1}${2}${3}")
    plain = plain.str.replace(r"^(-?\d+)\.$", "$1")  # numpy's 3. is 3
    rows = (parts.str.contains("\\", literal=True) & parts.str.contains(r"^\s*['\"]")).arg_true()
    if not len(rows):
        return plain
    quoted = parts.gather(rows).str.replace(rf"\s*(?:{_ends(separator)})\s*$", "")
    return plain.scatter(rows, list(map(_unescaped, quoted)))


def _unescaped(quoted: str) -> str:
    """What a text of JSON or Python says; as it is, where it is neither."""
    readers: tuple[Callable[[str], object], ...] = (json.loads, ast.literal_eval)
    for read in readers:
        with suppress(ValueError, SyntaxError):
            return str(read(quoted.strip()))
    return quoted.strip()[1:-1]
