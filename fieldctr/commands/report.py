"""`fieldctr report runs=GLOB output=FOLDER`: finished runs compared on a page, with tables and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from fieldctr.analysis.report.report import PAGE, STUDY, report
from fieldctr.commands.compare import comparisons
from fieldctr.commands.compared_rows import CompareConfig
from fieldctr.config import listed, parse
from fieldctr.errors import UserError
from fieldctr.run_folders import find_runs


@dataclass(frozen=True)
class ReportConfig(CompareConfig):
    """The root of `fieldctr report`."""

    study_folder: str | None


def main(node: dict[str, Any]) -> None:
    """Compare as `fieldctr compare` does, and leave the page."""
    config = parse(ReportConfig, node, "")
    folder = Path(config.output)
    finished, unfinished = find_runs(listed(config.runs))
    compared = comparisons(CompareConfig(**{one.name: getattr(config, one.name) for one in fields(CompareConfig)}))
    report(
        compared,
        folder,
        outputs=Path(config.outputs),
        study=study_of(config.study_folder, [*finished, *unfinished]),
        unfinished=unfinished,
    )
    for one in compared:
        print("\n".join(row["sentence"] for row in one["differences"] if row["metric"] == one["metrics"][0]))
    print(f"{folder}/{PAGE}")


def study_of(given: str | None, runs: Sequence[Path]) -> Path | None:
    """The folder of the study whose searches and failures are shown: as given, or the one that all runs lie in."""
    if given is not None:
        if not (Path(given) / STUDY).exists():
            raise UserError(f"study_folder={given}: no {STUDY} there, so no study. Studies are below outputs/studies")
        return Path(given)
    around = {next((above for above in run.resolve().parents if (above / STUDY).exists()), None) for run in runs}
    return around.pop() if len(around) == 1 else None
