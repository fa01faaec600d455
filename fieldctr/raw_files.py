"""What a file of others is, by its bytes and by what the file system says: raw tables, and the weights of encoders."""

import re
import time
from collections.abc import Iterable, Mapping
from itertools import takewhile
from pathlib import Path

from fieldctr.artifacts import file_digest
from fieldctr.checksums import keep, kept
from fieldctr.errors import UserError, nearest

KEY_FOLDER = re.compile(r"([^=]+)=(.*)")
SETTLED_NS = 2 * 10**9  # a file written since could be written again within one tick of its file system's clock


def key_folders(path: Path) -> list[str]:
    """The innermost folders that lead to a file and say what a column is, such as day=0."""
    return [*takewhile(KEY_FOLDER.fullmatch, reversed(path.parts[:-1]))][::-1]


def digests(files: tuple[Path, ...], memo: Path, algorithm: str = "sha256") -> list[list[str]]:
    """[name, digest] of each file, remembered in the JSON file `memo` while nothing of its `stamp` changes."""
    known = kept(memo) or {}
    fresh, found, remembered = {}, [], {}
    for path in files:  # one file can serve two splits
        mark = f"{path.resolve()} {stamp(path)}"
        fresh[mark] = fresh.get(mark) or known.get(mark) or file_digest(path, algorithm)
        found.append(["/".join((*key_folders(path), path.name)), fresh[mark]])
        if settled([path], time.time_ns()):
            remembered[mark] = fresh[mark]
    if not remembered.keys() <= known.keys():
        keep(memo, known | remembered)
    return found


def beside(path: Path) -> str:
    """'Nearest: a, b. ' for the name of a file that is absent: what its folder has instead, or ''."""
    return nearest(path.name, [one.name for one in path.parent.iterdir()]) if path.parent.is_dir() else ""


def stamp(path: Path) -> str:
    """Size, times of the last writing and of the last change of any kind, and inode: whoever writes changes one."""
    stat = path.stat()
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"


def stamps(files: Iterable[Path]) -> dict[str, str]:
    """The `stamp` of each file by its path."""
    return {str(path.resolve()): stamp(path) for path in files}


def settled(files: Iterable[Path], moment_ns: int) -> bool:
    """Whether none of the files was written since that moment of `time.time_ns`, as far as clocks can tell."""
    return all(path.stat().st_ctime_ns < moment_ns - SETTLED_NS for path in files)


def refuse_changed(before: Mapping[str, str]) -> None:
    """UserError for a file that has another of its `stamps` than before: what was read of it has no name."""
    for path, was in before.items():
        if not Path(path).exists() or stamp(Path(path)) != was:
            raise UserError(f"{path} changed while it was read. Nothing was written. Call again when it is whole")
