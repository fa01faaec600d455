"""Runs on disk: which folders a glob names, and what a run has read of the stages beside it."""

import contextlib
import glob
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from fieldctr.errors import UserError
from fieldctr.runs import ASIDE, CONFIG, READERS_FILE, READS, RECORD, RESULT, lines_of, read_whole


def find_runs(patterns: Iterable[str]) -> tuple[list[Path], list[Path]]:
    """Folders of runs that globs name, sweeps being opened: the finished ones and the others, in order, each once.

    UserError for a pattern that names no run.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        named = [Path(path) for path in glob.glob(pattern)]  # noqa: PTH207  a pattern may be absolute
        folders = [config.parent for path in named for config in _configs(path)]
        if not folders:
            raise UserError(f"runs={pattern}: no run folder there. Runs are below outputs/train")
        found |= dict.fromkeys(sorted(folders, key=lambda run: (run.parent, by_numbers(run), run.name)))
    finished = [run for run in found if (run / RESULT).exists()]
    return finished, [run for run in found if run not in set(finished)]


def _configs(folder: Path) -> list[Path]:
    own = folder / CONFIG
    return [own] if own.exists() else list(folder.glob(f"*/{CONFIG}"))


def by_numbers(job: Path) -> list[str | int]:
    """A key that sorts names by the numbers in them: 2_fm before 10_fm, d16 before d128."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", job.name)]


def read_by(folder: Path) -> set[str]:
    """The digests of the table and the field vectors that the run in `folder` reads, as far as it is known."""
    known: set[str] = set()
    with contextlib.suppress(FileNotFoundError, UserError):
        known |= set(read_whole(folder / RECORD).get(READS, ()))
    with contextlib.suppress(FileNotFoundError, UserError):
        result = read_whole(folder / RESULT)  # all that runs of earlier versions say
        named = [result.get(key) for key in ("field_embeddings", "model_field_embeddings")]
        known |= {result.get("data_digest", ""), *(one["digest"] for one in named if one)}
    return known


def readers_of(folder: Path) -> Iterator[Path]:
    """The runs, wherever they are, that read the prepared table or the field vectors in `folder`."""
    for line in lines_of(folder / READERS_FILE):
        run = Path(line)
        for one in (run, *run.glob(f"{ASIDE}*")):
            known = read_by(one)
            if folder.name in known or (not known and (one / CONFIG).exists()):  # what it reads it does not say yet
                yield one
