"""The shards of a table that is being prepared: one process makes them, and after a kill the next one goes on."""

import fcntl
import json
import os
import shutil
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fieldctr.artifacts import KEY_FILE, canonical, stage_folder
from fieldctr.data.shards import FORMAT, rows_done
from fieldctr.disk import write_json
from fieldctr.errors import UserError

LOCK_FILE = "lock"
UNLIKE = {"files": None, "format": None}  # keys of which a difference makes a table no other one


@contextmanager
def unfinished(root: Path, key: Mapping[str, object]) -> Generator[Path]:
    """A hidden folder in `root` for the shards of the table of this key, for this process alone; others wait.

    Removed when the table is prepared, or refused by a UserError. What else ends the work, a kill or a full disk,
    leaves it, and the next call says that it goes on. One for other bytes of the same files is removed, and this is
    said.
    """
    folder = root / f".{stage_folder(root, key).name}.shards"
    key = json.loads(canonical({"format": FORMAT, **key}))  # lists for tuples, as in the file
    with _locked(folder):
        _remove_stale(root, key, folder)
        write_json(folder / KEY_FILE, key)
        if rows := rows_done(folder):
            _say(f"an earlier call was stopped: goes on behind the {rows:,} rows that it read")
        try:
            yield folder
        except UserError:
            shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)


@contextmanager
def _locked(folder: Path) -> Generator[None]:
    """Alone in `folder`, which is there and stays there. The system lets go of the lock of a process that is killed."""
    path = folder / LOCK_FILE
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _say("another process prepares the same table: waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):  # not removed meanwhile
                yield
                return


def _remove_stale(root: Path, key: Mapping[str, object], own: Path) -> None:
    """Remove what a killed process left of this table, and the shards of files that have changed since."""
    for folder in root.glob(f"{own.stem}.*"):
        if folder != own:
            shutil.rmtree(folder)
    for path in root.glob(f".*.shards/{KEY_FILE}"):
        other = json.loads(path.read_text(encoding="utf-8"))
        if other != key and other | UNLIKE == {**key, **UNLIKE}:
            files = " or ".join(name for name, _ in other["files"]) or "the source"
            _say(f"{files} changed since an earlier call was stopped: it starts anew")
            shutil.rmtree(path.parent)
            own.mkdir(exist_ok=True)


def _say(text: str) -> None:
    print(f"fieldctr: {text}", file=sys.stderr)
