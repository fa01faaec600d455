"""How a file of raw rows is written: its format, separator, header, quotes, encoding and texts that mean missing."""

import codecs
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from fieldctr.config import as_name
from fieldctr.data.fields.spelling import meant
from fieldctr.errors import UserError, nearest

FORMATS = ("auto", "csv", "parquet", "jsonl", "arrow", "libsvm")
BLANKS = r"\s+"  # as a separator: any run of blanks and tabs
BACKSLASH = "backslash"  # quotes are double quotes, and a backslash escapes one
QUOTES = ("auto", "none", BACKSLASH)
ESCAPES = {r"\t": "\t", r"\\t": "\t", r"\\s+": BLANKS, r"\x01": "\x01", r"\u0001": "\x01", r"\001": "\x01"}  # as typed


@dataclass(frozen=True)
class Reading:
    """The keys of a source, or of `predict`, that say how its files are read. Each is what the user typed, made plain.

    `auto` is what the file itself tells, see `fieldctr.data.scan.settled`.
    """

    format: str = "auto"
    separator: str = ","  # any text; \t as typed means a tab, \s+ a run of blanks
    header: Sequence[str] | None = None  # the columns, where the first line is a row already
    quote: str = "auto"  # a character; none (or ""): quotes are text; backslash: double quotes, escaped by one
    encoding: str = "auto"  # utf-8, latin-1, cp1252, utf-16, ...: any that Python knows
    null_values: Sequence[Any] = ()  # what means missing, besides a blank

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UserError(f"format={self.format} is not allowed: expected {' | '.join(FORMATS)}")
        plain = {
            "separator": _separator(self.separator),
            "header": None if self.header is None else _header(self.header),
            "quote": _quote(self.quote),
            "encoding": _encoding(self.encoding),
            "null_values": null_texts(self.null_values),
        }
        for name, value in plain.items():
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, keys: Mapping[str, Any], base: Self | None = None) -> Self:
        """`base`, or what a Reading is by itself, with these keys; a UserError names one that is none."""
        known = [field.name for field in fields(cls)]
        for key in keys:
            if key not in known:
                raise UserError(f"no key '{key}'. {nearest(key, known)}All: {', '.join(known)}")
        return replace(base or cls(), **keys)


def null_texts(values: Iterable[Any]) -> tuple[str, ...]:
    """The texts that YAML values stand for: null and true for each word that YAML has, 1 and 1.0 for one of both."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise UserError(f"null_values={values} is not allowed: expected a list, as in [NULL, -1]")
    return tuple(dict.fromkeys(text for value in values for text in _texts(value)))


def _texts(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else meant(value)


def _separator(value: Any) -> str:
    if not isinstance(value, str) or not value or {"\n", "\r"} & set(value):
        raise UserError(
            f"separator={value!r} is not allowed: expected a text such as ',', '\\t' or '::', or '\\s+' for blanks"
        )
    return ESCAPES.get(value, value)


def _header(names: Any) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, Sequence) or not names:
        raise UserError(f"header={names} is not allowed: expected a list with the name of each column")
    texts = tuple(as_name(name, "header") for name in names)
    duplicates = [name for name in texts if texts.count(name) > 1]
    if duplicates:
        raise UserError(f"header: two columns are called '{duplicates[0]}'. Give each a name of its own.")
    return texts


def _quote(value: Any) -> str:
    if value in (None, ""):
        return "none"
    if not isinstance(value, str) or (value not in QUOTES and (len(value) != 1 or not value.isascii())):
        raise UserError(f"quote={value} is not allowed: expected one ASCII character, or {' | '.join(QUOTES)}")
    return value


def _encoding(value: Any) -> str:
    if value == "auto":
        return value
    try:
        name = codecs.lookup(str(value)).name
        "".encode(name)  # not one of the codecs that turn bytes into bytes
    except LookupError as error:
        raise UserError(f"encoding={value} is not known: expected one such as utf-8, latin-1 or utf-16") from error
    return {"utf-8-sig": "utf-8", "ascii": "utf-8"}.get(name, name)
