"""What the W&B client wrote offline: its file is a LevelDB log (blocks of 32 KiB) of protobuf records."""

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

BLOCK, HEAD = 32768, 7  # bytes: of a block, and of a record's checksum, length and kind
WHOLE, LAST = 1, 4  # kinds of a record that end it
HANGS_S = 1800


class Mirrored(NamedTuple):
    """One run."""

    run_id: str
    group: str
    tags: list[str]
    config: dict[str, Any]
    history: dict[int, dict[str, Any]]  # by step
    summary: dict[str, Any]


def read_offline(folder: Path) -> list[Mirrored]:
    """Every run below a folder, once its service has written the end of it."""
    deadline, files = time.monotonic() + HANGS_S, sorted(folder.rglob("*.wandb"))
    while not all(any(record.WhichOneof("record_type") == "exit" for record in _records(file)) for file in files):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return [_run(_records(file)) for file in files]


def _records(path: Path) -> list[Any]:
    from wandb.proto import wandb_internal_pb2

    data, at, part, found = path.read_bytes(), HEAD, b"", []
    while at + HEAD <= len(data):
        if BLOCK - at % BLOCK < HEAD:
            at += BLOCK - at % BLOCK
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        if at + HEAD + size > len(data):
            break  # it is being written
        part += data[at + HEAD : at + HEAD + size]
        at += HEAD + size
        if kind in (WHOLE, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(part)
            found.append(record)
            part = b""
    return found


def _run(records: list[Any]) -> Mirrored:
    begun = next(record.run for record in records if record.WhichOneof("record_type") == "run")
    history: dict[int, dict[str, Any]] = {}
    for record in records:
        if record.WhichOneof("record_type") == "history":
            items = _items(record.history.item)
            history.setdefault(int(items["_step"]), {}).update(items)
    summary: dict[str, Any] = {}
    for record in records:
        if record.WhichOneof("record_type") == "summary":
            summary |= _items(record.summary.update)
    return Mirrored(begun.run_id, begun.run_group, [*begun.tags], _items(begun.config.update), history, summary)


def _items(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
