"""Files that are whole or absent: written beside their place, on the disk before they get their name.

What the system says of a disk becomes an OSError that names the file, whichever library passes it on.
"""

import errno
import fcntl
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from types import TracebackType
from typing import Any

from fieldctr.errors import UserError

TEMPORARY = ".tmp"  # ends the names of files and folders that are not whole
READABLE = 0o644  # mkstemp gives 0600, which hides results from colleagues
RUST = re.compile(r"\(os error (\d+)\)")  # how libraries written in Rust pass on what the system said
CAUSES = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of this user is used up",
    errno.EFBIG: "the file would be larger than the system allows (ulimit -f, or the file system's limit)",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
    errno.EIO: "the disk reports an error",
    errno.ESTALE: "the file system that it lies on was mounted anew",
    errno.ENOTCONN: "the file system that it lies on is gone",
    errno.ENODEV: "the device that it lies on is gone",
    errno.EISDIR: "it is a folder, where a file is expected",
    errno.ENOTDIR: "a part of the path is a file, where a folder is expected",
    errno.EEXIST: "it is there already, and no folder",
    errno.ENOENT: "it is not there, or vanished",
    errno.ENAMETOOLONG: "the name is too long for the file system",
    errno.EMFILE: "this process has too many files open (ulimit -n)",
}
_told: set[int] = set()  # file systems without locks, of which it was said


class blamed:  # noqa: N801  used as a function
    """A context in which an error of the system names `path`, unless it names another file that has its name."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        named = str(getattr(error, "filename", None) or TEMPORARY)
        if error is None or isinstance(error, UserError) or not named.endswith(TEMPORARY):
            return
        if (code := code_of(error)) is not None:
            raise OSError(code, os.strerror(code), str(self.path)) from error


def code_of(error: BaseException) -> int | None:
    """The number of what the system said, where an error passes that on."""
    said = RUST.search(str(error))
    return getattr(error, "errno", None) or (int(said[1]) if said else None)


def cause_of(error: OSError) -> str:
    """What went wrong, in words."""
    return CAUSES.get(error.errno or 0) or error.strerror or str(error)


def sentence(error: OSError) -> str:
    """What the system says, with the file that it says it of, and what to do."""
    cause = cause_of(error)
    where = error.filename2 or error.filename
    return f"{where}: {cause}. What was whole is kept: call again when this is mended" if where else cause


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """A sibling to write, which then takes the place of `path`: a reader sees the old file or the new, never half.

    It is on the disk before it has the name, and the name before this ends. After an error nothing is left; what a
    killed process left is removed by the next one that writes the same file.
    """
    with blamed(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        name = f".{path.name[:100]}."
        _remove_unlocked(path.parent.glob(f"{escape(name)}*{TEMPORARY}"))
        handle, temporary = _locked_file(path.parent, name)
        try:
            yield temporary
            temporary.chmod(READABLE)
            flush(temporary)
            temporary.replace(path)
            flush(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(handle)


def _locked_file(folder: Path, prefix: str) -> tuple[int, Path]:
    """A new file, locked, which no other process takes for one that a killed process left."""
    while True:
        handle, path = tempfile.mkstemp(dir=folder, prefix=prefix, suffix=TEMPORARY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            say_no_locks(folder)
        if os.fstat(handle).st_nlink:
            return handle, Path(path)
        os.close(handle)  # another process was quicker than the lock


def _remove_unlocked(paths: Iterable[Path]) -> None:
    """Remove files that no process is writing."""
    for path in paths:
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
        except (BlockingIOError, FileNotFoundError):
            continue  # it is being written, or another process has removed it
        except OSError as error:
            _say_left(path, error)


def write_text(path: Path, text: str) -> None:
    """Write `path` whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write a JSON value as `in_json` spells it, whole or not at all."""
    write_text(path, in_json(value))


def in_json(value: object) -> str:
    """The text of a JSON file, for reading; ValueError for what JSON cannot hold."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_object(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None where it holds anything else."""
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError, IsADirectoryError):
        return None
    return found if isinstance(found, dict) else None


def flush(path: Path) -> None:
    """Wait until a file's bytes, or the names in a folder, are on the disk."""
    with blamed(path):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems know no fsync
                raise
        finally:
            os.close(handle)


def remove(paths: Iterable[Path]) -> None:
    """Remove files and folders that may be gone already. What cannot be removed stays, which is said."""
    for path in paths:
        whole = path.is_dir() and not path.is_symlink()
        try:
            (shutil.rmtree if whole else os.unlink)(path)
        except FileNotFoundError:  # another process has removed it, or is doing so
            shutil.rmtree(path, ignore_errors=True)
        except OSError as error:
            shutil.rmtree(path, ignore_errors=True)  # what else is in it
            _say_left(path, error)


def say_no_locks(folder: Path) -> None:
    """Say, once for each file system, that it has no locks, and what that means."""
    if (device := folder.stat().st_dev) not in _told:
        print(
            f"fieldctr: the file system of {folder} has no locks: a file beside a folder stands for one, and what a "
            "killed process leaves of a file stays",
            file=sys.stderr,
        )
        _told.add(device)


def _say_left(path: Path, error: OSError) -> None:
    print(f"fieldctr: {path} is of no use any more and cannot be removed: {cause_of(error)}", file=sys.stderr)
