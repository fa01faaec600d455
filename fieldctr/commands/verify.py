"""`fieldctr verify`: read whatever is stored below outputs, and say what is no longer what was written."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fieldctr.artifacts import check_stage, is_earlier
from fieldctr.checksums import is_sealed
from fieldctr.commands.stored import existing, run_folders, stage_folders
from fieldctr.config import parse
from fieldctr.disk import sentence
from fieldctr.errors import UserError
from fieldctr.runs import RESULT, check_run, load_config, load_result
from fieldctr.training.checkpoint import check_checkpoints

OLD = "{} of an earlier version (without checksums, not checked)"


@dataclass(frozen=True)
class VerifyConfig:
    """The root of `fieldctr verify`."""

    data_root: str
    outputs: str
    runs: str | list[str] | None


def main(node: dict[str, Any]) -> None:
    """Print what is damaged, with its cure, and how much is whole; exit with 1 where anything is damaged."""
    config = parse(VerifyConfig, node, "")
    outputs = existing(config.outputs)
    whole, damaged = Counter[str](), 0
    for kind, complaint in verified(outputs, config.runs):
        whole[kind] += not complaint
        damaged += bool(complaint)
        if complaint:
            print(complaint)
    print(f"whole: {', '.join(f'{kind} {count}' for kind, count in (+whole).items()) or 'nothing'}")
    if damaged:
        print(f"damaged: {damaged}")
        raise SystemExit(1)


def verified(outputs: Path, runs: str | list[str] | None) -> Iterator[tuple[str, str]]:
    """Kind and complaint, "" where there is none, of each stored thing."""
    for folder in stage_folders(outputs):
        earlier = is_earlier(folder)
        yield (OLD.format(folder.parent.name), "") if earlier else (folder.parent.name, _complaint(folder))
    for run in run_folders(outputs, runs):
        ended = (run / RESULT).exists()
        kind = "unfinished runs" if not ended else "runs" if is_sealed(run) else OLD.format("runs")
        yield kind, _complaint(run, run=True)


def _complaint(folder: Path, *, run: bool = False) -> str:
    try:
        if not run:
            check_stage(folder)
            return ""
        if (folder / RESULT).exists() or is_sealed(folder):
            load_result(folder)
            check_run(folder)
        load_config(folder)
        check_checkpoints(folder)
    except UserError as error:
        return str(error)
    except OSError as error:
        return sentence(error)
    return ""
