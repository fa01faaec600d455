"""The page: what the template is given, and the template filled. Whatever comes from files is escaped there.

The page holds its style, its script, its pictures; a rule in its head forbids the browser to fetch anything, and to run
any script but the page's own.
"""

import base64
import hashlib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fieldctr.analysis.comparison.sentences import percent
from fieldctr.analysis.comparison.tables import grave
from fieldctr.analysis.report import words
from fieldctr.analysis.report.chart import TONES, Chart, clipped, drawing
from fieldctr.analysis.report.charts import cost_of
from fieldctr.analysis.report.growth import Growth
from fieldctr.analysis.report.members import Member, differences_of
from fieldctr.analysis.report.searches import Trace

TEMPLATES = Path(__file__).parent / "page"
PICTURES = ("field_pairs", "attention", "bases")  # that a run leaves of its inside
MOST_PICTURE_BYTES = 1_200_000  # of a page, so that it stays below 3 MB


class Cell(NamedTuple):
    """A number as it is written, and as it is sorted."""

    text: str
    value: float | None
    spread: str = ""


class Row(NamedTuple):
    """An arm in the table of results, with what its drawer holds."""

    arm: Mapping[str, Any]
    tone: str
    group: int | None
    metrics: list[Cell]
    costs: list[Cell]
    members: Sequence[Member]
    changes: list[tuple[str, str, str]]  # key, value here, value of the reference


class Picture(NamedTuple):
    """A heatmap that a run left; without `data` where the page would grow too large."""

    arm: str
    title: str
    path: Path
    data: str


class Section(NamedTuple):
    """All about one data set."""

    comparison: Mapping[str, Any]
    answer: str
    rows: list[Row]
    differences: dict[str, list[Mapping[str, Any]]]  # by metric, the best first
    intervals: list[Chart]
    learning: list[Chart]
    calibration: Chart | None
    costs: list[Chart]
    growths: list[Growth]
    traces: list[Trace]
    pictures: list[Picture]


class Failure(NamedTuple):
    """A run that did not finish, and why."""

    job: str
    status: str
    error: str


def rows_of(comparison: Mapping[str, Any], arms: Mapping[str, Sequence[Member]], tones: Mapping[str, str]) -> list[Row]:
    """The arms by group, the best first, and by their mean within it."""
    first = comparison["metrics"][0]
    reference = arms.get(comparison["against"]) or []
    found = []
    for arm in comparison["arms"]:
        own = arms[arm["name"]]
        changes = differences_of(own[0], reference[0]) if own and reference else []
        metrics = [_metric(arm, metric) for metric in comparison["metrics"]]
        costs = [Cell(cost_text(cost_of(arm, name), name), cost_of(arm, name)) for name in ("seconds", "parameters")]
        group = words.group_of(comparison, first, arm["name"])
        found.append(Row(arm, tones[arm["name"]], group, metrics, costs, own, changes))
    sign = 1 if words.lower(first) else -1
    return sorted(found, key=lambda row: (row.group or len(found) + 1, sign * (row.metrics[0].value or 0.0)))


def answer_of(comparison: Mapping[str, Any]) -> str:
    """Which arms are best, in a sentence."""
    metric = comparison["metrics"][0]
    groups = comparison["groups"][metric]
    best, said = groups[0], f"by {words.called(metric)} on {comparison['split']}"
    if len(best) == 1:
        return f"{best[0]} is best {said}."
    if len(groups) == 1:
        return f"No arm is told apart from the best {said}."
    return f"Best {said}: {', '.join(best[:-1])} and {best[-1]}, which are not told apart."


def _metric(arm: Mapping[str, Any], metric: str) -> Cell:
    own = arm["metrics"].get(metric) or {}
    spread = "" if own.get("sd") is None else f"±\N{THIN SPACE}{words.fixed(own['sd'])}"
    return Cell(words.fixed(own.get("mean")), own.get("mean"), spread)


def cost_text(value: float | None, name: str) -> str:
    """Seconds in a fitting unit, counts with commas."""
    return words.seconds(value) if name == "seconds" else f"{value:,.0f}" if value else ""


def pictures_of(arms: Mapping[str, Sequence[Member]], room: int) -> list[Picture]:
    """Of the first run of each arm, as long as there is room; of the others the path."""
    found = []
    for name, members in arms.items():
        for kind in PICTURES if members else ():
            path = members[0].folder / f"{kind}.png"
            if not path.exists():
                continue
            data = base64.b64encode(path.read_bytes()).decode()
            room -= len(data)
            found.append(Picture(name, kind.replace("_", " "), path, data if room >= 0 else ""))
    return found


def command_of(member: Member) -> str:
    """The call that made the run, to paste into a shell."""
    program, *arguments = member.command or [""]
    return " ".join([program, *map(shlex.quote, arguments)])


def filled(
    *,
    title: str,
    question: str,
    sections: Sequence[Section],
    failures: Sequence[Failure],
    facts: Iterable[str],
) -> str:
    """The page as HTML."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "fixed": words.fixed,
        "signed": words.signed,
        "p_value": words.p_value,
        "digits": words.digits_of,
        "percent": percent,
        "seconds": words.seconds,
        "setting": words.setting,
        "drawing": drawing,
        "clipped": clipped,
        "command": command_of,
        "sortable": lambda value: "" if value is None else value,
    }
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    return environment.get_template("page.html").render(
        title=title,
        question=question,
        sections=sections,
        failures=failures,
        facts=list(facts),
        called=words.called,
        lower=words.lower,
        grave=grave,
        tones=TONES,
        script=Markup(script),
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
