"""The shards of a table that is being prepared: one process makes them, and after a kill the next one goes on."""

import json
import shutil
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fieldctr.artifacts import KEY_FILE, canonical, stage_folder
from fieldctr.checksums import check
from fieldctr.data.shards import FORMAT, finished, rows_done
from fieldctr.disk import read_object, remove, write_json
from fieldctr.errors import UserError
from fieldctr.locks import HeldError, lock
from fieldctr.raw_files import stamp

KEYS_OF_FILES = {"files": None, "format": None, "stamps": None}  # a table stays the same one where these differ


def shards_folder(folder: Path) -> Path:
    """Where the shards of the table that will lie in `folder` are made."""
    return folder.with_name(f".{folder.name}.shards")


@contextmanager
def unfinished(root: Path, key: Mapping[str, object], stamps: Mapping[str, str]) -> Generator[Path]:
    """A hidden folder in `root` for the shards of the table of this key, for this process alone; others wait.

    Removed when the table is prepared, or refused by a UserError. What else ends the work, a kill or a full disk,
    leaves its whole shards, and the next call says that it goes on. Shards that are damaged, or were made of files that
    had other `stamps`, are removed, and so are those of other bytes of the same files; this is said.
    """
    folder = shards_folder(stage_folder(root, key))
    own = json.loads(canonical({"format": FORMAT, **key, "stamps": stamps}))  # lists for tuples, as in the file
    release = lock(folder, waiting=lambda who: _say(f"{who} prepares the same table: waiting for it"))
    try:
        _remove_stale(root, own, folder)
        write_json(folder / KEY_FILE, own)
        if rows := rows_done(folder):
            _say(f"an earlier call was stopped: goes on behind the {rows:,} rows that it read")
        go_on = True
        try:
            yield folder
            go_on = False
        except UserError:
            go_on = False
            raise
        finally:
            remove(folder.glob(".*") if go_on and finished(folder) else [folder])
    finally:
        release()


def _remove_stale(root: Path, own: Mapping[str, object], folder: Path) -> None:
    """Remove what is of no use of this table's shards, and the shards of files that have changed since.

    Those of another table only if no process makes them.
    """
    if finished(folder) and _key(folder) != own:
        _say(f"{_files(own)} may have changed since an earlier call was stopped: it starts anew")
        remove(folder.iterdir())
    for shard in sorted(folder.glob("[0-9]*")):
        try:
            check(shard, cure="Its rows are read again")
        except UserError as error:
            _say(str(error))
            shutil.rmtree(shard)
    for path in root.glob(f".*.shards/{KEY_FILE}"):
        other = _key(path.parent)
        if path.parent != folder and other is not None and other | KEYS_OF_FILES == {**own, **KEYS_OF_FILES}:
            try:
                release = lock(path.parent)
            except HeldError:
                continue  # of another version of the files, which another process prepares
            if finished(path.parent):  # else that process has just ended
                _say(f"{_files(other)} changed since an earlier call was stopped: it starts anew")
            remove([path.parent])
            release()


def can_go_on(folder: Path, version: int) -> bool:
    """Whether a call would go on from the shards in `folder`: of this version, and of files that are as they were."""
    key, table = _key(folder), folder.with_name(folder.name.removeprefix(".").removesuffix(".shards"))
    if key is None or key.get("format") != FORMAT or key.get("version") != version or table.exists():
        return False
    files = key.get("stamps")
    return isinstance(files, dict) and all(Path(path).exists() and stamp(Path(path)) == files[path] for path in files)


def _key(folder: Path) -> dict[str, Any] | None:
    """What the shards in `folder` are of; None where nothing says it."""
    path = folder / KEY_FILE
    return read_object(path) if path.exists() else None


def _files(key: Mapping[str, Any]) -> str:
    return " or ".join(name for name, _ in key["files"]) or "the source"


def _say(text: str) -> None:
    print(f"fieldctr: {text}", file=sys.stderr)
