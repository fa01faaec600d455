"""The raw files that a name stands for, and their rows one below the other."""

import glob
import re
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from urllib.parse import unquote

import polars as pl

from fieldctr.data.columns import column
from fieldctr.data.fields.spelling import spelled
from fieldctr.data.formats import FOLDER, MISSING, obstacle, refuse_unreadable_path
from fieldctr.data.reading import Reading
from fieldctr.data.scan import say, scan, settled
from fieldctr.data.table import required_all
from fieldctr.errors import UserError
from fieldctr.raw_files import KEY_FOLDER, key_folders

NO_VALUE = "__HIVE_DEFAULT_PARTITION__"  # Hive's name for null
LEFTOVER = re.compile(r"_[^.]*|_.*\.crc")  # _SUCCESS and the like, which writers leave beside their files
INTEGERS: tuple[pl.DataType, ...] = (pl.Int8(), pl.Int16(), pl.Int32(), pl.Int64(), pl.Int128())


def find(raw_dir: Path, pattern: str, cure: str = "It is your table.") -> list[Path]:
    """The files that `pattern` stands for, sorted: a name in `raw_dir`, a glob, a folder, or the path to one of these.

    A name that exists is no glob. Of a folder all files below it count, but for those that begin with . or _; of a glob
    all but hidden ones and those like _SUCCESS.
    """
    named = _named(raw_dir, pattern)
    found = sorted({path for one in named for path in (_below(one) if obstacle(one) == FOLDER else [one])})
    if named and not found:
        raise UserError(f"no file in the folder {named[0]}. {cure}")
    if not found:
        required_all(raw_dir, (pattern,), cure)
    for path in found:
        refuse_unreadable_path(path)
    return found


def exists(raw_dir: Path, pattern: str) -> bool:
    """Whether `pattern` stands for anything."""
    return bool(_named(raw_dir, pattern))


def _named(raw_dir: Path, pattern: str) -> list[Path]:
    """The files and folders that a pattern stands for."""
    path = Path(pattern).expanduser()
    if obstacle(raw_dir / path) != MISSING:
        return [raw_dir / path]
    place = path if path.is_absolute() else Path(glob.escape(str(raw_dir))) / path
    names = map(Path, glob.glob(str(place), recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
    return [one for one in names if not LEFTOVER.fullmatch(one.name)]


def _below(folder: Path) -> list[Path]:
    def seen(path: Path) -> bool:
        return not any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)

    return [path for path in folder.rglob("*") if seen(path) and obstacle(path) != FOLDER]


def scan_all(
    paths: Sequence[Path], reading: Reading, *, row: str | None = None, base: Path | None = None
) -> tuple[pl.LazyFrame, dict[Path, Reading]]:
    """The rows of the files, one file below the other, with what their folders below `base` say; how each is read.

    `row` names one more column for the rows' numbers, where one file is all.
    """
    parts, readings = scan_each(paths, reading, row=row, base=base)
    return concat(parts), readings


def scan_each(
    paths: Sequence[Path], reading: Reading, *, row: str | None = None, base: Path | None = None
) -> tuple[list[tuple[Path, pl.LazyFrame]], dict[Path, Reading]]:
    """The rows of each file, with what its folders below `base` say, and how it is read; `row` as in `scan_all`."""
    readings = settled(paths, reading)
    row = row if len(paths) == 1 else None
    parts = [(path, scan(path, readings[path], row=row)) for path in paths]
    return with_folder_keys(parts, base), readings


def with_folder_keys(
    parts: Sequence[tuple[Path, pl.LazyFrame]], base: Path | None = None
) -> list[tuple[Path, pl.LazyFrame]]:
    """Columns, of text, for folders such as day=0 that lead to the files, below `base` if they lie there.

    A key that is a column too must agree with it. Where files have different keys, none is taken.
    """
    keys = [folder_keys(path, base) for path, _ in parts]
    if len({tuple(sorted(own)) for own in keys}) > 1:
        say(
            f"folders such as {next(iter(next(filter(None, keys))))}=... lead to some files only: not taken for columns"
        )
        return list(parts)
    return [(path, _keyed(path, frame, own)) for (path, frame), own in zip(parts, keys, strict=True)]


def folder_keys(path: Path, base: Path | None = None) -> dict[str, str | None]:
    """What the folders key=value say that lead to a file; below `base`, else the innermost ones without a gap."""
    inside = base and path.is_relative_to(base)
    folders = path.relative_to(base).parts[:-1] if base and inside else key_folders(path)
    found = [match for folder in folders if (match := KEY_FOLDER.fullmatch(folder))]
    return {unquote(match[1]): None if match[2] == NO_VALUE else unquote(match[2]) for match in found}


def _keyed(path: Path, frame: pl.LazyFrame, keys: Mapping[str, str | None]) -> pl.LazyFrame:
    schema = frame.collect_schema()
    for name, value in keys.items():
        if name in schema:
            differs = spelled(column(name), schema[name]).ne_missing(pl.lit(value, pl.String))
            if frame.select(differs.any()).collect().item():
                raise UserError(f"{path}: column '{name}' holds something else than the folder {name}={value} says")
    return frame.with_columns(
        pl.lit(value, pl.String).alias(name) for name, value in keys.items() if name not in schema
    )


def concat(parts: Sequence[tuple[Path, pl.LazyFrame]]) -> pl.LazyFrame:
    """The frames one below the other, columns matched by name.

    Where types differ, the type that holds both without loss is taken, and said; else a UserError names file, column
    and both types. A column that one file has and another lacks is refused.
    """
    first, frame = parts[0]
    names, schemas = list(frame.collect_schema()), [frame.collect_schema() for _, frame in parts]
    if all(list(schema.items()) == list(schemas[0].items()) for schema in schemas):
        return frame if len(parts) == 1 else pl.concat([frame for _, frame in parts])
    for (path, _), schema in zip(parts, schemas, strict=True):
        _refuse_other_columns(first, schemas[0], path, schema)
    kinds = {
        name: _shared(name, [(path, s[name]) for (path, _), s in zip(parts, schemas, strict=True)]) for name in names
    }
    return pl.concat(
        frame.select(_cast(name, schema[name], kinds[name]) for name in names)
        for (_, frame), schema in zip(parts, schemas, strict=True)
    )


def _refuse_other_columns(first: Path, expected: pl.Schema, path: Path, schema: pl.Schema) -> None:
    absent, extra = [n for n in expected if n not in schema], [n for n in schema if n not in expected]
    if absent or extra:
        lacks = f" lacks {', '.join(map(repr, absent))}" if absent else ""
        has = f" has {', '.join(map(repr, extra))}, which {first.name} lacks" if extra else ""
        raise UserError(f"{path}{lacks}{' and' if lacks and has else ''}{has}. All files need the same columns.")


def _shared(name: str, kinds: Sequence[tuple[Path, pl.DataType]]) -> pl.DataType:
    """The type of a column in all files together."""

    def wider(one: tuple[Path, pl.DataType], other: tuple[Path, pl.DataType]) -> tuple[Path, pl.DataType]:
        found = common(one[1], other[1])
        if found is None:
            raise UserError(f"{other[0]}: column '{name}' is {other[1]}, and in {one[0].name} it is {one[1]}.")
        return one[0], found

    found = reduce(wider, kinds)[1]
    if any(kind != found for _, kind in kinds):
        say(f"column '{name}' is {' or '.join(dict.fromkeys(str(kind) for _, kind in kinds))}: read as {found}")
    return found


def common(one: pl.DataType, other: pl.DataType) -> pl.DataType | None:
    """The type that holds the values of both without loss, or None; whole numbers and floats meet as texts."""
    texts, lists = (pl.String, pl.Categorical, pl.Enum), (pl.List, pl.Array)
    if pl.Null in (one, other) or one == other:
        return other if one == pl.Null else one
    if isinstance(one, lists) and isinstance(other, lists):
        inner = common(_inner(one), _inner(other))
        return pl.List(inner) if inner else None
    if one in texts and other in texts:
        return pl.String()
    return _common_number(one, other) if one.is_numeric() and other.is_numeric() else None


def _common_number(one: pl.DataType, other: pl.DataType) -> pl.DataType | None:
    if one.is_decimal() or other.is_decimal():
        return None
    if one.is_integer() and other.is_integer():
        return next((kind for kind in INTEGERS if _holds(kind, one) and _holds(kind, other)), pl.Int128())
    return pl.Float64() if one.is_float() and other.is_float() else pl.String()


def _holds(kind: pl.DataType, other: pl.DataType) -> bool:
    """Whether every integer of type `other` is one of type `kind`."""
    signed, bits = other.is_signed_integer(), int(str(other).removeprefix("U").removeprefix("Int"))
    return int(str(kind).removeprefix("Int")) >= bits + (not signed)


def _inner(kind: pl.List | pl.Array) -> pl.DataType:
    return kind.inner if isinstance(kind.inner, pl.DataType) else kind.inner()


def _cast(name: str, kind: pl.DataType, wanted: pl.DataType) -> pl.Expr:
    if kind == wanted:
        return column(name)
    text = spelled(column(name), kind) if wanted == pl.String else column(name).cast(wanted)
    return text.alias(name)
