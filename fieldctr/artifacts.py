"""Content-addressed folders: a stage's result lives under the sha256 of everything that determines it."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

KEY_FILE = "key.json"


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


def write_text(path: Path, text: str) -> None:
    """Write by a temporary sibling and a rename: a reader sees the old file or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).chmod(0o644)  # mkstemp gives 0600, which hides results from colleagues
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def write_json(path: Path, value: object) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def stage_folder(root: Path, key: Mapping[str, object]) -> Path:
    """Where the result of this key lies, or would: root/<first 16 digits of the key's sha256>."""
    return root / digest(key)[:16]


def cached(root: Path, key: Mapping[str, object], build: Callable[[Path], None]) -> Path:
    """The `stage_folder` of the key, built by `build(temporary folder)` if it is absent.

    key.json is written last and the folder renamed into place, so what passes for a result is whole. Two processes that
    race build two folders and one wins; a failed build leaves nothing, a killed one a hidden folder that no one reads.
    """
    folder = stage_folder(root, key)
    if (folder / KEY_FILE).exists():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=root, prefix=f".{folder.name}."))
    try:
        build(temporary)
        write_json(temporary / KEY_FILE, key)
        temporary.chmod(0o755)
        with contextlib.suppress(OSError):  # the other process of a race was first: its result is equal
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if not (folder / KEY_FILE).exists():
        raise OSError(f"{folder} exists without {KEY_FILE}: it is not a result of fieldctr; remove it and run again")
    return folder
