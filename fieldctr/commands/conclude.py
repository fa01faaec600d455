"""The end of a study: its runs compared, reported, and, where it asks for it, fitted by scaling laws."""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fieldctr.analysis.comparison.tables import terminal
from fieldctr.analysis.report.mirror import mirror_comparison
from fieldctr.analysis.report.report import PAGE, report
from fieldctr.commands.compare import comparisons
from fieldctr.commands.compared_rows import CompareConfig
from fieldctr.commands.launch import compose
from fieldctr.commands.scaling import main as fit_laws
from fieldctr.config import listed, parse
from fieldctr.disk import write_text
from fieldctr.run_folders import find_runs
from fieldctr.runs import load_result
from fieldctr.studies.plan import RUNS, StudyConfig
from fieldctr.studies.record import ANSWER, chosen, edges
from fieldctr.studies.schedule import Schedule

REPORT, SCALING = "report", "scaling"  # folders of a study


def conclude(schedule: Schedule) -> None:
    """Leave the report of what has finished, and its answer in words."""
    config, folder = schedule.config, schedule.folder
    cells = sorted(path for path in (folder / RUNS).glob("*/*") if path.is_dir())
    finished, unfinished = find_runs(map(str, cells)) if cells else ([], [])
    write_text(folder / ANSWER, f"{_answer(schedule, finished, unfinished)}\n")
    for asked in listed(config.scaling) if config.scaling is not None and finished else ():
        words = [f"{key}={value}" for key, value in asked.items()]
        node = compose("scaling", [f"runs={folder / RUNS}/*/*", f"outputs={config.outputs}", "tracker=none", *words])
        fit_laws(node, folder / SCALING / str(asked.get("scaled") or "all"))


def _answer(schedule: Schedule, finished: Sequence[Path], unfinished: Sequence[Path]) -> str:
    config, folder = schedule.config, schedule.folder
    if not schedule.seeds and not finished:
        return "\n".join(["Searches alone, best trials on valid; the test split was not read:", *chosen(folder)])
    if not finished:
        return "No run has finished, so there is nothing to compare."
    if len({run.parent for run in finished}) == 1:
        return _one_arm(finished)
    found = comparisons(compare_config(config, folder))
    pictures = report(found, folder / REPORT, outputs=Path(config.outputs), study=folder, unfinished=unfinished)
    mirror_comparison(replace(config.tracker, group=folder.name), folder, found, pictures)
    notes = [f"note: {sentence}" for sentence in edges(folder)]
    return "\n\n".join([*map(terminal, found), *notes, str(folder / REPORT / PAGE)])


def _one_arm(finished: Sequence[Path]) -> str:
    auc = [load_result(run)["test"]["auc"] for run in finished]
    spread = f" ± {statistics.stdev(auc):.4f}" if len(auc) > 1 else ""
    name = finished[0].parent.name
    return f"{name}: test AUC {statistics.fmean(auc):.4f}{spread}, {len(auc)} seeds. One arm has nothing beside it"


def compare_config(config: StudyConfig, folder: Path) -> CompareConfig:
    """What `fieldctr compare` would be asked: arms by name, or by what is not held fixed."""
    by = [group for group in config.over if group not in config.within] if config.within else ["arm"]
    asked = {
        "runs": [f"{folder / RUNS}/*/*"],
        "by": by,
        "within": config.within,
        "against": config.against,
        "metrics": config.metrics,
        "slices": config.slices,
        "output": str(folder / REPORT),
    }
    node = compose("compare", ["runs=x", f"outputs={config.outputs}", f"data_root={config.data_root}"])
    return parse(CompareConfig, node | asked, "")
