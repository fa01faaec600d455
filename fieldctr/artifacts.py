"""Content-addressed folders: a stage's result lives under the sha256 of everything that determines it."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from fieldctr.checksums import check, complete, is_sealed
from fieldctr.disk import TEMPORARY, blamed, flush, read_object, remove
from fieldctr.errors import UserError
from fieldctr.locks import lock, remove_unowned

KEY_FILE = "key.json"
FORMAT = 2  # of a stage's folder; since 2 it has checksums


def canonical(value: object) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text. Raises TypeError for what JSON cannot hold."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: object) -> str:
    """sha256 (64 hex digits) of the canonical form of a JSON value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """Digest of a file's bytes; about 1 GB/s."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def stage_folder(root: Path, key: Mapping[str, object]) -> Path:
    """Where the result of this key lies, or would: root/<16 digits>, the first of the sha256 of format and key."""
    return root / digest({"format": FORMAT, "key": key})[:16]


def cached(root: Path, key: Mapping[str, object], build: Callable[[Path], None]) -> Path:
    """The `stage_folder` of the key, built by `build(temporary folder)` if it is absent.

    The folder is sealed and on the disk before it gets its name, so what passes for a result is whole; who reads it
    calls `check_stage`. Two processes that race build two folders and one wins; a failed build leaves nothing, a killed
    one a hidden folder that the next call removes.
    """
    folder = stage_folder(root, key)
    if folder.exists():
        return folder
    with blamed(root):
        root.mkdir(parents=True, exist_ok=True)
        remove_unowned(root.glob(f".{folder.name}.*{TEMPORARY}"))  # what killed calls left
        temporary = Path(tempfile.mkdtemp(dir=root, prefix=f".{folder.name}.", suffix=TEMPORARY))
        release = lock(temporary)
        try:
            build(temporary)
            complete(temporary, KEY_FILE, key)
            temporary.chmod(0o755)
            _rename(temporary, folder)
        finally:
            remove([temporary])
            release()
    return folder


def is_earlier(folder: Path) -> bool:
    """Whether a stage's folder is one of an earlier version, which has no checksums."""
    if is_sealed(folder) or not (folder / KEY_FILE).exists():
        return False
    return digest(read_key(folder))[:16] == folder.name


def check_stage(folder: Path, names: Iterable[str] | None = None, *, sizes: Iterable[str] = (), cure: str = "") -> None:
    """UserError where the folder is not what `cached` made: its key, and the files `names` or all, are read whole."""
    cure = cure or f"Remove {folder}, and call again: it is made anew"
    check(folder, names if names is None else {*names, KEY_FILE}, sizes=sizes, cure=cure)
    if stage_folder(folder.parent, read_key(folder)).name != folder.name:
        raise UserError(f"{folder}: its {KEY_FILE} is that of another folder. {cure}")


def read_key(folder: Path) -> dict[str, Any]:
    """What `cached` made the folder of; {} where no JSON object says it."""
    return read_object(folder / KEY_FILE) or {}


def _rename(temporary: Path, folder: Path) -> None:
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.exists():  # else the other process of a race was first: its result is equal
            raise
    flush(folder.parent)
