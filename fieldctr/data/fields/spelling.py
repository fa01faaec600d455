"""How a value is spelled: one text for it, whatever the file or the YAML that it comes from.

1, 1.0, 1.00 and "1" are 1; 1e-05 is 0.00001; -0 is 0; True and TRUE are true. Texts that only look like numbers stay:
007 is no 7, and 12e45678, a hash, is no number, because no program writes a number so. The words in NULL_WORDS mean
that there is no value, in fields of every kind; `null_words: false` of a field or a dataset makes them values.
"""

import math
import re
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any

import polars as pl
from polars.datatypes import DataTypeClass

from fieldctr.errors import UserError

NULL_WORDS = ("nan", "NaN", "NAN", "null", "Null", "NULL", "None", "<NA>")  # as programs write a missing value
# A point, or an exponent as programs write it: with a sign, or behind a point.
DECIMAL = r"^-?(?:\d+\.\d*|\.\d+)$"
SCIENTIFIC = r"^-?(?:\d\.\d+[eE][+-]?|\d[eE][+-])\d{1,3}$"
BOOLEANS = ("True", "TRUE", "False", "FALSE")
RESPELLED = f"{DECIMAL}|{SCIENTIFIC}|^(?:-0|{'|'.join(BOOLEANS)})$"
OR_NULL = f"{RESPELLED}|^(?:{'|'.join(NULL_WORDS)})$"
LARGEST = 3.4028234663852886e38  # a float32, which a model computes with
NULL_WORD, NOT_FINITE = -math.inf, math.inf  # in the place of a number that a cell does not hold
EXACT = 2**63  # below it a whole float is written as the whole number that it is
YAML_WORDS = {  # what YAML reads as these
    True: ("true", "yes", "Yes", "YES", "on", "On", "ON"),
    False: ("false", "no", "No", "NO", "off", "Off", "OFF"),
    None: ("null", "Null", "NULL", "~"),
}


def spelled(raw: pl.Expr, dtype: pl.DataType | DataTypeClass) -> pl.Expr:
    """Values as text, null or blank where missing, not yet canonical: that costs less once per distinct text."""
    if not dtype.is_float():
        return raw if dtype == pl.String else raw.cast(pl.String)
    whole = (raw == raw.floor()) & (raw.abs() < EXACT)
    exact = raw.cast(pl.Int64, strict=False).cast(pl.String)
    return pl.when(whole).then(exact).otherwise(raw.fill_nan(None).cast(pl.String))


def canonical(texts: pl.Expr, *, null_words: bool = False) -> pl.Expr:
    """The one spelling of each text; with `null_words`, null for NULL_WORDS."""
    spell = partial(canonical_series, null_words=null_words)
    return texts.map_batches(spell, return_dtype=pl.String, is_elementwise=True)


def canonical_series(texts: pl.Series, *, null_words: bool = False) -> pl.Series:
    """`canonical` of a column. Costs one look at each text, and more at those few that are spelled otherwise."""
    rows = texts.str.contains(OR_NULL if null_words else RESPELLED).arg_true()
    if not len(rows):
        return texts
    text = pl.col("text")
    scientific = text.map_batches(by_word(_without_exponents, pl.String()), return_dtype=pl.String)
    plain = _without_zeros(pl.when(text.str.contains(SCIENTIFIC)).then(scientific).otherwise(text))
    boolean = text.is_in(list(BOOLEANS))
    respelled = pl.when(boolean).then(text.str.to_lowercase()).otherwise(plain)
    said = pl.when(~text.is_in(NULL_WORDS)).then(respelled) if null_words else respelled
    return texts.scatter(rows, texts.gather(rows).to_frame("text").select(said).to_series())


def without_null_words(texts: pl.Expr) -> pl.Expr:
    """Null for a text that says that there is no value."""
    return pl.when(~texts.is_in(NULL_WORDS)).then(texts)


def value_texts(raw: pl.Expr, dtype: pl.DataType, *, null_words: bool = True) -> pl.Expr:
    """The canonical texts of a column's cells; null where missing or blank."""
    texts = canonical(spelled(raw, dtype), null_words=null_words)
    return pl.when(texts != "").then(texts)


def text_of(value: Any) -> str:
    """The one spelling of a value that Python or YAML holds: as the cell of a file that means it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        return str(int(value)) if value == value // 1 and abs(value) < EXACT else format(Decimal(repr(value)), "f")
    return str(canonical_series(pl.Series([str(value)], dtype=pl.String)).item())


def meant(value: Any) -> tuple[str, ...]:
    """The texts of cells that a YAML value can mean: for an unquoted yes, which YAML reads as true, yes too."""
    return YAML_WORDS[value] if value is None or isinstance(value, bool) else (text_of(value),)


def meant_texts(values: Any, key: str) -> list[str]:
    """The texts that a YAML list means, for a label rule and its like; UserError for null and for what is no list."""
    if not isinstance(values, list | tuple):
        raise UserError(f"{key}={values} is not allowed: expected a list of values, such as [{values}]")
    for value in values:
        if value is None:
            raise UserError(f'{key}: an unquoted null is no text. Quote it: "null"')
        if isinstance(value, list | dict):
            raise UserError(f"{key}: {value} is not allowed: expected texts, numbers, true or false")
    return [text for value in values for text in meant(value)]


def squared_logs(texts: pl.Expr, *, null_words: bool) -> pl.Expr:
    """floor(ln(x)^2) of a number above 2, else the number without its fraction, as text; null where there is none."""
    square = partial(_squared_logs, null_words=null_words)
    return texts.map_batches(square, return_dtype=pl.String, is_elementwise=True)


def number(column: pl.Expr, dtype: pl.DataType, *, null_words: bool = True) -> pl.Expr:
    """Cells as Float64; null where blank, NaN, infinite, or a word that says that there is none.

    polars raises for a text that is no number.
    """
    told = told_number(column, dtype, null_words=null_words)
    return pl.when(told.is_finite()).then(told)


def told_number(column: pl.Expr, dtype: pl.DataType, *, null_words: bool = True) -> pl.Expr:
    """The number that a cell holds, or why it holds none: NULL_WORD or NOT_FINITE, and null where it is blank."""
    if dtype == pl.String or isinstance(dtype, pl.Categorical | pl.Enum):
        read = partial(_read_numbers, null_words=null_words)
        return column.cast(pl.String).map_batches(read, return_dtype=pl.Float64, is_elementwise=True)
    told = column.cast(pl.Float64).fill_nan(None)
    return pl.when(told.abs() > LARGEST).then(NOT_FINITE).otherwise(told)


def _squared_logs(texts: pl.Series, *, null_words: bool) -> pl.Series:
    told = _read_numbers(texts, null_words=null_words)
    x = pl.col(told.name)
    square = pl.when(x > 2).then((x.log() ** 2).floor()).otherwise(x)
    return told.to_frame().select(pl.when(x.is_finite()).then(square).cast(pl.Int64).cast(pl.String)).to_series()


def _read_numbers(cells: pl.Series, *, null_words: bool) -> pl.Series:
    """Float64 of texts. Nearly all are read at once; those that are not cost a second look."""
    numbers = cells.cast(pl.Float64, strict=False)
    rows = ((numbers.abs() <= LARGEST).not_().fill_null(True) & cells.is_not_null()).arg_true()
    if not len(rows):
        return numbers
    texts = canonical_series(cells.gather(rows).str.strip_chars())
    words = texts.is_in(NULL_WORDS) & null_words
    plain = texts.replace({"true": "1", "false": "0", "": None}).set(words, None)
    read = plain.cast(pl.Float64).fill_nan(None)  # raises for what is no number either way
    return numbers.scatter(rows, read.set(read.abs() > LARGEST, NOT_FINITE).set(words, NULL_WORD))


def by_word(function: Callable[[pl.Series], list | pl.Series], dtype: pl.DataType) -> Callable[[pl.Series], pl.Series]:
    """`function` of the distinct texts of a column, for each of its cells; null stays null."""

    def mapped(texts: pl.Series) -> pl.Series:
        known = texts.drop_nulls().unique()
        return texts.replace_strict(known, function(known), default=None, return_dtype=dtype)

    return mapped


def _without_exponents(texts: pl.Series) -> list[str]:
    found = [float(text) if re.fullmatch(SCIENTIFIC, text) else math.inf for text in texts]
    return [text_of(number) if math.isfinite(number) else text for number, text in zip(found, texts, strict=True)]


def _without_zeros(number: pl.Expr) -> pl.Expr:
    """Decimal numbers without zeros at their end, and without the sign of a 0."""
    short = (
        pl.when(number.str.contains(DECIMAL))
        .then(number.str.strip_chars_end("0").str.strip_chars_end("."))
        .otherwise(number)
    )
    return short.str.replace(r"^(-?)\.", "${1}0.").str.replace(r"^-?0?$", "0")
