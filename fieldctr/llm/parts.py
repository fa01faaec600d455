"""A stage of hours that a kill may stop: its parts lie in a hidden folder, and the next call goes on behind the last.

The finished folder is content-addressed and sealed as that of any stage (artifacts.py). One process works at it, others
wait for its result.
"""

import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fieldctr.artifacts import cached, check_stage, stage_folder
from fieldctr.disk import remove
from fieldctr.locks import lock

PARTS = ".parts"  # ends the name of the hidden folder


def made_in_parts(root: Path, key: Mapping[str, object], build: Callable[[Path, Path], None], *, doing: str) -> Path:
    """The folder of the key below `root`; where it is absent `build(folder, parts)` makes it.

    `parts` is a folder that a call which is stopped leaves to the next one. `doing` is what others are told to wait
    for, such as "reads the same texts".
    """
    folder = stage_folder(root, key)
    if not folder.exists() or parts_folder(folder).exists():  # a kill can leave the parts of what is whole
        with unfinished(folder, doing) as work:
            cached(root, key, lambda into: build(into, work))
    check_stage(folder)
    return folder


def parts_folder(folder: Path) -> Path:
    """Where the parts are made of what will lie in `folder`."""
    return folder.with_name(f".{folder.name}{PARTS}")


@contextmanager
def unfinished(folder: Path, doing: str) -> Generator[Path]:
    """A hidden folder for the parts of what will lie in `folder`, for this process alone; others wait for it.

    It is removed when that is there. What else ends the work leaves the parts to the next call.
    """
    work = parts_folder(folder)
    release = lock(work, waiting=lambda who: print(f"fieldctr: {who} {doing}: waiting", file=sys.stderr))
    try:
        yield work
        remove([work])
    finally:
        release()
