"""`fieldctr study status`: how far studies are, from what they leave in their folders."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fieldctr.config import parse
from fieldctr.disk import read_object
from fieldctr.errors import UserError, unknown
from fieldctr.locks import HeldError, lock
from fieldctr.studies.record import STATUS, status_text


@dataclass(frozen=True)
class StudyStatusConfig:
    """The root of `fieldctr study status`."""

    data_root: str
    outputs: str
    name: str | None


def main(node: dict[str, Any]) -> None:
    """Print a few lines on each study."""
    config = parse(StudyStatusConfig, node, "")
    for folder in folders(config):
        status = read_object(folder / STATUS)
        if status is None:
            print(f"{folder}: has not begun to run")
        else:
            print(status_text(folder, status, alive=is_running(folder)))


def folders(config: StudyStatusConfig) -> list[Path]:
    """The studies below outputs/studies, or the one that is named; UserError where none is."""
    home = Path(config.outputs) / "studies"
    known = sorted(path.parent for path in home.glob("*/study.json"))
    if config.name is None:
        if not known:
            raise UserError(f"outputs={config.outputs}: no study is there yet: fieldctr study models=lr,fm dataset=...")
        return known
    for folder in (home / config.name, Path(config.name)):
        if (folder / "study.json").exists():
            return [folder]
    raise UserError(unknown("study", config.name, [path.name for path in known]))


def is_running(folder: Path) -> bool:
    """Whether a process has the study's folder."""
    try:
        lock(folder, make=False)()
    except HeldError:
        return True
    return False
