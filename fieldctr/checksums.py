"""Checksums of a folder's files, in its checksums.json: what a file was when it was written, it is when it is read.

xxh3, 128 bits: it finds damage, at 20 GB/s, and no forgery.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import xxhash

from fieldctr.disk import blamed, flush, in_json, read_object, sentence, write_text
from fieldctr.errors import UserError

CHECKSUMS_FILE = "checksums.json"
BLOCK = 1 << 18  # bytes at a time: what the cache holds


def checksum(path: Path) -> str:
    """The checksum of a file's bytes, as 32 hex digits."""
    found, buffer = xxhash.xxh3_128(), memoryview(bytearray(BLOCK))
    with blamed(path), path.open("rb", buffering=0) as file:
        for size in iter(partial(file.readinto, buffer), 0):
            found.update(buffer[:size])
    return found.hexdigest()


def of_text(text: str) -> str:
    """The checksum of a text's bytes."""
    return xxhash.xxh3_128(text.encode()).hexdigest()


def complete(
    folder: Path, last: str, value: object, names: Iterable[str] | None = None, *, flushed: bool = True
) -> None:
    """Write the JSON file `last`, which makes a folder whole, when the others are `flushed` to the disk and sealed.

    checksums.json has sizes and checksums of the files `names`, or of all, and of the last one before it is there.
    """
    text = in_json(value)
    seal(folder, names, coming={last: text}, flushed=flushed)
    write_text(folder / last, text)


def seal(
    folder: Path, names: Iterable[str] | None = None, *, coming: Mapping[str, str] = {}, flushed: bool = True
) -> None:
    """Write the sizes and checksums of the files `names` of a folder, or of all, when they are `flushed` to the disk.

    `coming` has the texts of files that will be written next, the last of which makes the folder whole.
    """
    if names is None:
        paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        names = (name for name in paths if name != CHECKSUMS_FILE)
    files = {}
    for name in sorted(names):
        path = folder / name
        if flushed:
            flush(path)
        files[name] = [path.stat().st_size, checksum(path)]
    files |= {name: [len(text.encode()), of_text(text)] for name, text in coming.items()}
    write_text(folder / CHECKSUMS_FILE, json.dumps({"algorithm": "xxh3_128", "files": files}, indent=1) + "\n")


def check(folder: Path, names: Iterable[str] | None = None, *, sizes: Iterable[str] = (), cure: str) -> None:
    """UserError, which ends with `cure`, where a file is not what it was when the folder was sealed.

    The files `names` are read whole, or all; of `sizes` only the size is compared.
    """
    files = sealed(folder, cure=cure)
    for name in sizes:
        _check_size(folder / name, files.get(name), cure)
    for name in files if names is None else names:
        _check_size(folder / name, files.get(name), cure)
        if checksum(folder / name) != files[name][1]:
            raise UserError(f"{folder / name} is damaged: other bytes than were written. {cure}")


def _check_size(path: Path, record: tuple[int, str] | None, cure: str) -> None:
    if record is None:
        raise UserError(f"{path.name} is not in {path.parent / CHECKSUMS_FILE}. {cure}")
    if not path.is_file():
        raise UserError(f"{path} is missing. {cure}")
    if (size := path.stat().st_size) != record[0]:
        raise UserError(f"{path} is damaged: {size:,} bytes, {record[0]:,} were written. {cure}")


def is_sealed(folder: Path) -> bool:
    """Whether the folder has checksums; what earlier versions wrote has none."""
    return (folder / CHECKSUMS_FILE).exists()


def sealed(folder: Path, *, cure: str) -> dict[str, tuple[int, str]]:
    """Size and checksum of each file of a sealed folder; UserError, which ends with `cure`, where it is not."""
    path = folder / CHECKSUMS_FILE
    if not path.exists():
        raise UserError(f"{path} is missing: whether the folder is whole cannot be told. {cure}")
    files = (read_object(path) or {}).get("files")
    if not isinstance(files, dict) or not all(map(_is_record, files.values())):
        raise UserError(f"{path} is damaged. {cure}")
    return {name: (size, found) for name, (size, found) in files.items()}


def _is_record(value: Any) -> bool:
    return isinstance(value, list) and list(map(type, value)) == [int, str]


def keep(path: Path, content: Any) -> None:
    """Write a JSON value that can be computed again, with its own checksum. That it cannot be written is only said."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    try:
        write_text(path, f'{{"checksum": "{of_text(text)}", "content": {text}}}\n')
    except OSError as error:
        print(f"fieldctr: not remembered for the next call: {sentence(error)}", file=sys.stderr)


def kept(path: Path) -> Any | None:
    """What `keep` wrote; None where nothing is, and, which is said, where something else is."""
    try:
        said = path.read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        print(f"fieldctr: made anew: {sentence(error)}", file=sys.stderr)
        return None
    head, _, text = said.partition(', "content": ')
    if head == f'{{"checksum": "{of_text(text[:-2])}"' and text.endswith("}\n"):
        return json.loads(text[:-2])
    print(f"fieldctr: {path} is damaged, or of an earlier version: it is made anew", file=sys.stderr)
    return None
