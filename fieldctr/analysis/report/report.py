"""The report of a comparison: one page, its tables as Markdown, CSV and LaTeX, its pictures as PNG.

report.html                  the page; it needs nothing beside it
comparison.{md,csv,tex,json} as `fieldctr compare` writes them
costs.csv                    what was measured in seconds: no two calls give the same
*.png                        the pictures of the page, without those of searches
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fieldctr.analysis.comparison.tables import files_of
from fieldctr.analysis.report import charts
from fieldctr.analysis.report.chart import Chart
from fieldctr.analysis.report.growth import growths
from fieldctr.analysis.report.members import Member, by_arm, load_members, why_unfinished
from fieldctr.analysis.report.page import MOST_PICTURE_BYTES, Failure, Section, answer_of, filled, pictures_of, rows_of
from fieldctr.analysis.report.picture import save_png
from fieldctr.analysis.report.searches import trace
from fieldctr.analysis.scaling.report import Rows, as_csv
from fieldctr.disk import read_object, write_text
from fieldctr.provenance import short

PAGE, STUDY, RECORD = "report.html", "study.json", "record.json"


def report(
    comparisons: Sequence[Mapping[str, Any]],
    output: Path,
    *,
    outputs: Path,
    study: Path | None = None,
    unfinished: Iterable[Path] = (),
) -> dict[str, Path]:
    """Write the report of comparisons, as `compare` gives them, into a folder; gives its PNG files by name.

    `outputs` holds the prepared tables of the runs. `study` is the folder of a study, whose question, searches and
    failures are shown; `unfinished` are folders of runs that have no result.
    """
    members = load_members(Path(folder) for one in comparisons for arm in one["arms"] for folder in arm["folders"])
    told = {name: read_object(study / name) or {} if study else {} for name in (STUDY, RECORD)}
    searches = told[RECORD].get("searches", [])
    room = MOST_PICTURE_BYTES // len(comparisons)
    sections = [_section(one, members, searches, outputs, room) for one in comparisons]
    title = told[STUDY].get("name") or f"{', '.join(one['dataset'] for one in comparisons)}: runs compared"
    output.mkdir(parents=True, exist_ok=True)
    costs = as_csv([row for one in comparisons for row in cost_rows(one)])
    for name, text in {**files_of(comparisons), "costs.csv": costs}.items():
        write_text(output / name, text)
    page = filled(
        title=title,
        question=told[STUDY].get("question") or "",
        sections=sections,
        failures=_failures(told[RECORD], study, unfinished),
        facts=_facts(comparisons, members),
    )
    write_text(output / PAGE, page)
    return _pictures(sections, output)


def _section(
    comparison: Mapping[str, Any],
    members: Sequence[Member],
    searches: Iterable[Mapping[str, Any]],
    outputs: Path,
    room: int,
) -> Section:
    arms, colours, split = by_arm(comparison, members), charts.tones(comparison), comparison["split"]
    names = {*arms, *(member.folder.parent.name for one in arms.values() for member in one)}  # of a study's arms, too
    own = [search for search in searches if search["dataset"] == comparison["dataset"] and search["arm"] in names]
    found = [charts.intervals(comparison, metric) for metric in comparison["metrics"]]
    return Section(
        comparison,
        answer_of(comparison),
        rows_of(comparison, arms, colours),
        {metric: charts.ordered(comparison, metric) for metric in comparison["metrics"]},
        [chart for chart in found if chart],
        charts.learning(arms, colours),
        charts.reliability(arms, colours, split, outputs),
        charts.costs(comparison, colours),
        growths([member for one in arms.values() for member in one], split),
        [trace(search, number) for number, search in enumerate(own, 1)],
        pictures_of(arms, room),
    )


def cost_rows(comparison: Mapping[str, Any]) -> Rows:
    """What each arm and its search took."""
    rows = []
    for arm in comparison["arms"]:
        budget = arm["budget"] or {}
        row = {"dataset": comparison["dataset"], "arm": arm["name"], "fit_seconds": arm["seconds"]}
        row |= {"epoch_seconds": arm["epoch_seconds"], "peak_memory_mb": arm["peak_memory_mb"]}
        row |= {f"offline_{key}": (arm["offline"] or {}).get(key) for key in ("tokens", "seconds")}
        row |= {"parameters": charts.cost_of(arm, "parameters"), "flops_per_sample": arm["flops_per_sample"]}
        rows.append(row | {"search_trials": budget.get("trials"), "search_seconds": budget.get("seconds")})
    return rows


def _failures(record: Mapping[str, Any], study: Path | None, unfinished: Iterable[Path]) -> list[Failure]:
    """As the study recorded them, and what else has no result."""
    recorded = record.get("failures", [])
    known = {(study / one["folder"]).resolve() for one in recorded} if study else set()
    others = [Failure(str(run), "unfinished", why_unfinished(run)) for run in unfinished if run.resolve() not in known]
    return [Failure(one["job"], one["status"], one.get("error") or "") for one in recorded] + others


def _facts(comparisons: Sequence[Mapping[str, Any]], members: Sequence[Member]) -> list[str]:
    """One line on what the page is made of."""
    arms = {arm["name"] for one in comparisons for arm in one["arms"]}
    seeds = {seed for one in comparisons for arm in one["arms"] for seed in arm["seeds"]}
    commits = sorted({short(member.result.get("commit")) for member in members})
    counted = ((len(comparisons), "data set"), (len(arms), "arm"), (len(seeds), "seed"), (len(members), "run"))
    counts = [f"{count:,} {what}{'' if count == 1 else 's'}" for count, what in counted]
    return [*counts, f"commit {', '.join(commits)}"]


def _pictures(sections: Sequence[Section], output: Path) -> dict[str, Path]:
    found = {}
    for number, section in enumerate(sections, 1):
        several = f"{number}_{_as_file(section.comparison['dataset'])}_" if len(sections) > 1 else ""
        for chart in _charts(section):
            name = f"{several}{_as_file(chart.name)}"
            found[name] = save_png(chart, output / name)
    return found


def _charts(section: Section) -> list[Chart]:
    """The charts of a section that are saved one by one; the many of searches stand on the page alone."""
    calibration = [section.calibration] if section.calibration else []
    grown = [one.chart for one in section.growths]
    return [*section.intervals, *section.learning, *calibration, *section.costs, *grown]


def _as_file(name: str) -> str:
    """Letters that every file system takes."""
    return re.sub(r"[^\w.-]", "_", name)[:60]
