"""One process at a time in a folder: the system's lock, or a file with host and process where there are no locks."""

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from fieldctr.disk import TEMPORARY, blamed, remove, say_no_locks

LOCKED = ".lock.json"  # ends the name of the file beside a folder, on file systems without locks
POLL_S = 0.2
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EINVAL)  # EBADF: a folder on NFS

Release = Callable[[], None]


class HeldError(Exception):
    """Another process has the folder; the text says which, where that is known."""


def lock(folder: Path, *, waiting: Callable[[str], None] | None = None, make: bool = True) -> Release:
    """Make `folder` if it is absent, and have it alone until the returned function is called or the process ends.

    `HeldError` where another process has it; with `waiting`, which is told once who that is, it is waited for. Without
    `make` FileNotFoundError where it is absent.
    """
    told = False
    while True:
        try:
            return _attempt(folder, make=make)
        except HeldError as held:
            if waiting is None:
                raise
            if not told:
                waiting(str(held))
            told = True
            time.sleep(POLL_S)


def remove_unowned(folders: Iterable[Path]) -> list[Path]:
    """Remove the folders that no process has; gives those that are gone. Others see one whole, or not at all."""
    gone = []
    for folder in folders:
        with suppress(HeldError, FileNotFoundError):
            release = lock(folder, make=False)
            try:
                going = folder
                if folder.suffix != TEMPORARY:
                    going = folder.rename(folder.with_name(f".{folder.name.strip('.')}.{os.getpid()}{TEMPORARY}"))
                remove([going])
                if not going.exists():
                    gone.append(folder)
            finally:
                release()
    return gone


def _attempt(folder: Path, *, make: bool) -> Release:
    while True:
        with blamed(folder):
            if make:
                folder.mkdir(parents=True, exist_ok=True)
            try:
                handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                if not make:
                    raise
                continue  # removed meanwhile
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise HeldError("another process") from error
        except OSError as error:
            os.close(handle)
            if error.errno not in NO_LOCKS:
                raise
            return _by_file(folder, make=make)
        if _is(folder, handle):
            return lambda: os.close(handle)
        os.close(handle)  # who had it before has removed the folder


def _is(folder: Path, handle: int) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(folder.stat(), os.fstat(handle))
    return False


def _by_file(folder: Path, *, make: bool) -> Release:
    """The file appears with its content, by a link, or not at all; one whose process has ended is taken away."""
    path = folder.with_name(f".{folder.name}{LOCKED}")
    own = path.with_suffix(f".{os.getpid()}.{time.monotonic_ns()}{TEMPORARY}")
    say_no_locks(folder)
    mine = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "began": _began(os.getpid())})
    own.write_text(mine, encoding="utf-8")
    try:
        while True:
            try:
                os.link(own, path)
            except FileExistsError:
                _take_away(path, own.with_suffix(".old"))
            else:
                if make:
                    folder.mkdir(exist_ok=True)  # who had it before may have removed it
                return lambda: remove([path])
    finally:
        remove([own])


def _take_away(path: Path, aside: Path) -> None:
    """Remove a lock file whose process is known to have ended; HeldError for any other."""
    with suppress(FileNotFoundError):  # released, or taken away by another process, just now
        dead = path.read_text(encoding="utf-8")
        cure = f". If it has ended, remove {path}"
        try:
            host, pid, began = (json.loads(dead)[key] for key in ("host", "pid", "began"))
        except (ValueError, KeyError, TypeError) as error:  # a disk lost what was in it
            raise HeldError(f"a process that its lock file no longer names{cure}") from error
        here = host == socket.gethostname()
        if not here or (began == _began(pid) and _lives(pid)):
            raise HeldError(f"process {pid} on {host}{'' if here else cure}")
        path.rename(aside)
        if aside.read_text(encoding="utf-8") != dead:  # another process was quicker, and this is its lock
            os.link(aside, path)
        remove([aside])


def _lives(pid: int) -> bool:
    with suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True


def _began(pid: int) -> str:
    """When a process began, in ticks since the machine did: a later process can have its number. "" where unknown."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    return ""
