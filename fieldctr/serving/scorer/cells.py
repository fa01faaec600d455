"""What a cell of a raw row says, as `fieldctr predict` reads it: a text, several, a number, a time."""

import ast
import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np

from .hashes import blake

NULL_WORDS = ("nan", "NaN", "NAN", "null", "Null", "NULL", "None", "<NA>")
LARGEST, EPOCH = 3.4028234663852886e38, datetime(1970, 1, 1)  # of a float32; in UTC
TICKS, LATEST, RECENT = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}, 4_102_444_800e6, 946_684_800e6
ISO = r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(:\d\d(?:[.,]\d{1,9})?)?)?\s*(Z|UTC|[+-]\d\d(?::?\d\d)?)?"
NUMBER = r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|inf|infinity|nan)"
QUOTED = r"'(?:[^'\\]|\\.)*'|" + r'"(?:[^"\\]|\\.)*"'
PART = r"(?s)\s*(?:'((?:[^'\\]|\\.)*)'|" + r'"((?:[^"\\]|\\.)*)"|(.*?))\s*(?:,|%s)?'


def spelled(value: Any) -> str:
    """The one text of a value: that of 1, 1.0 and "1.00" is 1. Blank where there is none."""
    if value is None or (isinstance(value, float | np.floating) and math.isnan(value)):
        return ""
    text = str(value)
    if isinstance(value, float | np.floating) and value == value // 1 and abs(value) < 2**63:
        return str(int(value))
    if text in ("True", "TRUE", "False", "FALSE"):
        return text.lower()
    if re.fullmatch(r"-?(?:\d\.\d+[eE][+-]?|\d[eE][+-])\d{1,3}", text) and math.isfinite(x := float(text)):
        text = str(int(x)) if x == x // 1 and abs(x) < 2**63 else format(Decimal(repr(x)), "f")
    if re.fullmatch(r"-?(?:\d+\.\d*|\.\d+)", text):
        text = re.sub(r"^(-?)\.", r"\g<1>0.", text.rstrip("0").rstrip("."))
        return "0" if text in ("", "-", "-0", "0") else text
    return "0" if text == "-0" else text


def number(value: Any, name: str, null_words: bool = True) -> float:
    """A number that a float32 holds; NaN where there is none."""
    if not isinstance(value, bool | int | float | np.number):
        text = spelled("" if value is None else str(value).strip())
        if not text or (null_words and text in NULL_WORDS):
            return math.nan
        value = {"true": "1", "false": "0"}.get(text, text)
        if not re.fullmatch(NUMBER, value, re.ASCII | re.IGNORECASE):
            raise ValueError(f"'{text}' in {name}: conversion from `str` to `f64` failed")
    return x if abs(x := float(value)) <= LARGEST else math.nan


def moment(value: Any, name: str, unit: str) -> datetime | None:
    """A time in UTC; None where there is none."""
    if unit in TICKS and not isinstance(value, datetime):
        ticks = number(value, name)
        if not math.isnan(ticks) and not 0 <= ticks * TICKS[unit] <= LATEST:
            better = [other for other, size in TICKS.items() if other != unit and RECENT <= ticks * size <= LATEST]
            cure = f"It is one in {better[0]}: set unit: {better[0]}" if better else "Leave such rows out"
            raise ValueError(f"column '{name}': {ticks:.15g} is no time between 1970 and 2100 in unit {unit}. {cure}.")
        return None if math.isnan(ticks) else EPOCH + timedelta(microseconds=int(ticks * TICKS[unit]))
    text = "" if value is None else str(value).strip()
    if not text or text in NULL_WORDS:
        return None
    found = re.fullmatch(ISO, text) if unit == "iso" or isinstance(value, datetime) else None
    try:
        if found:
            day, clock, second, zone = found.groups()
            zone = "" if zone in (None, "Z", "UTC") else zone.replace(":", "")
            when = datetime.fromisoformat(f"{day}T{clock or '00:00'}{(second or ':00').replace(',', '.')}")
            ahead = timedelta(hours=int(zone[1:3] or 0), minutes=int(zone[3:] or 0))
            return when + ahead if zone.startswith("-") else when - ahead
        when = datetime.strptime(text, unit)  # without a zone it is taken as it stands
    except ValueError as error:
        raise ValueError(f"'{text}' in {name}: conversion from `str` to `datetime[μs]` failed") from error
    return when.astimezone(UTC).replace(tzinfo=None) if when.tzinfo else when


def microseconds(value: Any, name: str, unit: str) -> float:
    """A time that orders rows; NaN where there is none. Numbers need not be since 1970."""
    if unit in TICKS and not isinstance(value, datetime):
        return number(value, name) * TICKS[unit]
    when = moment(value, name, unit)
    return math.nan if when is None else (when - EPOCH) / timedelta(microseconds=1)


def values_of_list(field: Mapping[str, Any], cells: tuple[Any, ...]) -> tuple[str, ...]:
    """The values of a list: a list, several columns, or a text with separators or as Python and JSON print a list."""
    ends, parts = f",|{re.escape(field['separator'])}", list(cells[0] if isinstance(cells[0], tuple) else cells)
    if not field["columns"] and not isinstance(cells[0], tuple):
        text = spelled(cells[0])
        parts, bare = text.split(field["separator"]), re.sub(QUOTED, "", text.strip())
        if re.fullmatch(r"(?s)\[\s*[\[({].*[\])}]\s*\]", bare):
            raise ValueError(
                f"field '{field['name']}': {text} is a list of lists or of objects. Expected plain values."
            )
        if re.fullmatch(r"(?s)\[[^\[\]]*\]|\([^()]*,[^()]*\)|\{[^{}:]*\}", bare):
            found = re.finditer(rf"(?s)\s*(?:{QUOTED}|.*?)\s*(?:{ends}|\Z)", text.strip()[1:-1])
            parts = [unquoted(part[0], ends) for part in found]
    if any(isinstance(part, tuple | list | dict) for part in parts):
        raise ValueError(f"field '{field['name']}' holds lists of lists. Expected texts, or lists of plain values.")
    texts = [spelled(spelled(part).strip()) for part in parts]
    left_out = {"", *field["padding"], *(NULL_WORDS if field["null_words"] else ())}
    texts = [text for text in texts if text not in left_out]
    texts = texts if field["shares"] else list(dict.fromkeys(texts))
    return tuple(texts[-field["max_length"] :] if field["keep"] == "last" else texts[: field["max_length"]])


def unquoted(part: str, ends: str) -> str:
    """A part of a printed list without the separator behind it and the quotes around it."""
    if "\\" in part and re.match(r"\s*['\"]", part):
        quoted = re.sub(rf"\s*(?:{ends})\s*\Z", "", part).strip()
        for read in (json.loads, ast.literal_eval):
            with suppress(ValueError, SyntaxError):
                return str(read(quoted))
        return quoted[1:-1]
    found = re.fullmatch(PART % ends, part)
    return re.sub(r"^(-?\d+)\.\Z", r"\1", "".join(group or "" for group in found.groups()) if found else part)


def texts_of(field: Mapping[str, Any], *cells: Any) -> tuple[str, ...]:
    """What a row says of a field: a text, several, or none."""
    kind, name, words = field["kind"], field["name"], field["null_words"]
    if kind == "multi":
        return values_of_list(field, cells)
    for column, cell in zip(field["reads"], cells, strict=True):
        if isinstance(cell, tuple | list | dict):
            raise ValueError(f"field '{name}': column '{column}' holds a list or an object. A list needs kind: multi.")
    texts = [spelled(cell) for cell in cells]
    if kind == "datetime":
        texts = [part_of(moment(cells[0], field["column"], field["unit"]), field["part"])]
    elif kind == "log_square":
        x = number(texts[0], field["column"], words)
        texts = ["" if math.isnan(x) else str(math.floor(math.log(x) ** 2) if x > 2 else int(x))]
    elif words:
        texts = ["" if text in NULL_WORDS else text for text in texts]
    text = " & ".join(texts) if all(texts) else ""
    others = field["buckets"] > 1 and text and blake(text) % field["buckets"] != field["bucket"]
    return () if text in ("", field["missing"]) or others else (text,)


def part_of(when: datetime | None, part: str) -> str:
    """The part of a time that a field is of; blank where there is no time."""
    if when is None:
        return ""
    days = {"weekday": when.isoweekday(), "is_weekend": int(when.isoweekday() > 5)}
    return str(days[part] if part in days else getattr(when, part))
