"""Files with one JSON object per line: a column for each key, whose values are texts as JSON writes them.

Every line is parsed in Python, twice: once for the keys, which no number of first rows can tell, once for the values.
So a column may mix numbers and texts, 0.10 stays 0.10, and NaN, which JSON lacks and Python writes, is read.
"""

import io
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from fieldctr.data.columns import refuse_own
from fieldctr.data.formats import BROKEN, opened
from fieldctr.data.reading import Reading
from fieldctr.data.streams import streamed
from fieldctr.errors import UserError

ROWS = 1 << 14  # of a batch
CONSTANTS = {True: "true", False: "false"}
VERBATIM = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str).decode


def json_lines(
    path: Path, encoding: str = "utf-8", decode: Callable[[str], Any] = json.loads
) -> Iterator[dict[str, Any]]:
    """The objects of a file, compressed or not; a UserError names the first line that holds none, blank ones apart."""
    line = 1
    try:
        with opened(path) as file:
            for row in file if encoding == "utf-8" else _lines(path, encoding):
                text = row if isinstance(row, str) else row.decode().removeprefix("\ufeff")
                found = decode(text) if text.strip() else None
                if isinstance(found, dict):
                    yield found
                elif text.strip():
                    raise ValueError("not a JSON object")
                line += 1
    except (*BROKEN, ValueError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else error
        raise UserError(f"{path} line {line:,}: {reason}. Nothing was written.") from error


def scan_json_lines(path: Path, reading: Reading, row: str | None = None) -> pl.LazyFrame:
    """The file's rows: texts, and lists of texts for the keys that hold lists. A key that is absent is null.

    Refuses a key that holds an object, and one that holds lists in some rows and single values in others.
    """
    lists = _keys(path, reading)
    kinds = {False: pl.String(), True: pl.List(pl.String)}
    schema = pl.Schema({name: kinds[is_list] for name, is_list in lists.items()})

    def batches(columns: list[str] | None) -> Iterator[pl.DataFrame]:
        objects = json_lines(path, reading.encoding, VERBATIM)
        while some := list(islice(objects, ROWS)):
            names = list(schema) if columns is None else columns
            cells = {name: [spelled_json(found.get(name)) for found in some] for name in names}
            yield pl.DataFrame(cells, schema={name: schema[name] for name in names})

    return streamed(schema, batches, row)


def spelled_json(value: Any) -> Any:
    """A value as JSON writes it, without quotes; each of a list. VERBATIM has made texts of numbers."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode(errors="replace").decode()  # half a surrogate pair
    if isinstance(value, bool):
        return CONSTANTS[value]
    return None if value is None else [spelled_json(each) for each in value]


def _keys(path: Path, reading: Reading) -> dict[str, bool]:
    """Whether each key of the file holds lists, in the order in which the keys come."""
    lists: dict[str, bool | None] = {}
    seen = set[tuple[tuple[str, type], ...]]()
    for number, found in enumerate(json_lines(path, reading.encoding, VERBATIM), 1):
        shape = tuple((key, type(value)) for key, value in found.items())
        nested = any(kind is list for _, kind in shape)
        if shape in seen and not nested:
            continue
        seen.add(shape)
        for key, value in found.items():
            _refuse_nested(path, number, key, value)
            lists.setdefault(key, None)
            if value is not None:
                if lists[key] not in (None, isinstance(value, list)):
                    raise UserError(
                        f"{path} row {number:,}: '{key}' holds a list in one row and a single value in another"
                    )
                lists[key] = isinstance(value, list)
    if not lists:
        raise UserError(f"{path}: no key in any row. Nothing was written.")
    refuse_own(lists, path)
    return {key: bool(is_list) for key, is_list in lists.items()}


def _refuse_nested(path: Path, number: int, key: str, value: Any) -> None:
    parts = value if isinstance(value, list) else [value]
    if any(isinstance(part, dict | list) for part in parts):
        raise UserError(
            f"{path} row {number:,}: '{key}' holds an object or a list in a list. Write its parts as keys of their own."
        )


def _lines(path: Path, encoding: str) -> Iterator[str]:
    with io.TextIOWrapper(opened(path), encoding=encoding) as file:
        yield from file
