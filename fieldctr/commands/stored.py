"""What lies below a folder of outputs: results that are cached by content, what was left unfinished, and runs."""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from fieldctr.artifacts import KEY_FILE
from fieldctr.checksums import CHECKSUMS_FILE
from fieldctr.disk import TEMPORARY
from fieldctr.errors import UserError
from fieldctr.run_folders import find_runs
from fieldctr.runs import ASIDE, CONFIG, RECORD

STAGE = re.compile(r"[0-9a-f]{16}")  # names of the folders that `artifacts.cached` makes
WITHIN = {"checkpoint", "wandb", "tensorboard"}  # folders of a run that hold no runs


def existing(outputs: str) -> Path:
    """The folder of outputs; UserError where none is."""
    if not Path(outputs).is_dir():
        raise UserError(f"outputs={outputs}: no such folder, so nothing is stored there")
    return Path(outputs)


def stage_folders(outputs: Path) -> list[Path]:
    """The cached results of all stages: outputs/<stage>/<digest>."""
    named = (path for path in outputs.glob("*/*") if STAGE.fullmatch(path.name) and not (path / CONFIG).exists())
    return sorted(path for path in named if (path / KEY_FILE).exists() or (path / CHECKSUMS_FILE).exists())


def shard_folders(outputs: Path) -> list[Path]:
    """Tables that are being prepared, or were when a call was stopped."""
    return sorted((outputs / "data").glob(".*.shards"))


def part_folders(outputs: Path) -> list[Path]:
    """Text vectors that are being made, or were when a call was stopped."""
    return sorted(outputs.glob("*/.*.parts"))


def leftovers(outputs: Path) -> list[Path]:
    """Folders that a stage is being written to, or was when a call was killed."""
    return sorted(path for path in outputs.glob(f"*/.*{TEMPORARY}") if path.is_dir())


def run_folders(outputs: Path, patterns: str | list[str] | None) -> list[Path]:
    """The runs below `outputs`, those moved aside included, and those that `patterns` name; finished or not."""
    named: list[Path] = []
    if patterns:
        finished, others = find_runs([patterns] if isinstance(patterns, str) else patterns)
        named = [*finished, *others]
    found = (*_runs_below(outputs), *(run for one in named for run in _runs_below(one)))
    once: dict[Path, Path] = {}
    for path in found:
        once.setdefault(path.resolve(), path)
    return list(once.values())


def _runs_below(root: Path) -> Iterator[Path]:
    seen = set()  # a link may lead back
    for place, folders, files in os.walk(root, followlinks=True):
        path = Path(place)
        if KEY_FILE in files or path.resolve() in seen:
            folders.clear()
            continue
        seen.add(path.resolve())
        if CONFIG in files or RECORD in files:
            yield path
        visible = (name for name in folders if name[:1] != "." or name.startswith(f".{ASIDE}"))
        folders[:] = sorted(set(visible) - WITHIN)


def size_of(paths: Iterable[Path]) -> int:
    """Bytes of all files in these folders, as far as they are still there."""
    size = 0
    for place, _, files in (entry for path in paths for entry in os.walk(path)):
        for name in files:
            with suppress(FileNotFoundError):
                size += (Path(place) / name).lstat().st_size
    return size
