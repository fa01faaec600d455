"""What a search tried, and what each hyper-parameter was worth on validation."""

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from fieldctr.analysis.report.chart import Axis, Chart, Mark
from fieldctr.analysis.report.words import setting

MOST_GROUPS = 4  # values of one hyper-parameter that are compared
FEWEST_TRIALS = 2  # of a group, in the mean
WIDE = 20  # a range, as a factor, that is shown on a logarithmic axis


class Worth(NamedTuple):
    """What a hyper-parameter was worth: best minus worst mean of the valid AUC over groups of its values."""

    key: str
    worth: float | None  # None where groups would have fewer than two trials each: any key would be worth as much
    best: str  # the values of the best group
    groups: int
    chosen: Any


class Trace(NamedTuple):
    """One search as it is shown."""

    arm: str
    budget: Mapping[str, Any]
    chosen: Mapping[str, Any]
    best: float | None
    worths: list[Worth]
    charts: list[Chart]


def trace(search: Mapping[str, Any], number: int) -> Trace:
    """The search's course, and for each key that varied its values against the valid AUC."""
    done = [trial for trial in search["trials"] if trial.get("valid")]
    auc = [trial["valid"]["auc"] for trial in done]
    chosen = search.get("chosen") or {}
    keys = sorted({key for trial in done for key in trial["params"]})
    worths = [found for key in keys if (found := worth(key, done, chosen.get(key)))]
    worths.sort(key=lambda one: -(one.worth or 0.0))
    charts = [_course(search, done, auc, number)] if done else []
    charts += [_values(search, done, auc, one, f"search_{number}_{place}") for place, one in enumerate(worths)]
    return Trace(search["arm"], search.get("budget") or {}, chosen, max(auc, default=None), worths, charts)


def worth(key: str, done: Sequence[Mapping[str, Any]], chosen: Any) -> Worth | None:
    """None for a key that did not vary. Many numbers are grouped by their order into equal parts."""
    pairs = [(trial["params"][key], trial["valid"]["auc"]) for trial in done if key in trial["params"]]
    values = _distinct([value for value, _ in pairs])
    if len(values) < 2:
        return None
    most = max(1, min(MOST_GROUPS, len(pairs) // FEWEST_TRIALS))
    if len(values) > most and _numbers(values):
        pairs.sort(key=lambda pair: pair[0])
        cuts = [round(i * len(pairs) / most) for i in range(most + 1)]
        parts = [pairs[low:high] for low, high in pairwise(cuts) if low < high]
        named = [(f"{part[0][0]:g} to {part[-1][0]:g}", [auc for _, auc in part]) for part in parts]
    else:
        named = [(str(value), [auc for own, auc in pairs if own == value]) for value in values]
    means = {name: statistics.fmean(found) for name, found in named}
    best = max(means, key=lambda name: means[name])
    known = len(means) > 1 and len(pairs) >= FEWEST_TRIALS * len(means)
    return Worth(key, max(means.values()) - min(means.values()) if known else None, best, len(means), chosen)


def _distinct(values: Sequence[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return sorted(found) if _numbers(found) else sorted(found, key=str)


def _numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _course(search: Mapping[str, Any], done: Sequence[Mapping[str, Any]], auc: Sequence[float], number: int) -> Chart:
    steps = [float(trial["number"]) for trial in done]
    best = [max(auc[: i + 1]) for i in range(len(auc))]
    names = [_spelled(trial) for trial in done]
    marks = (
        Mark("step", steps, best, "t0", names=["best so far"]),
        Mark("dots", steps, auc, "muted", names=names),
    )
    title = f"{search['arm']}: trials, and the best so far"
    return Chart(f"search_{number}", title, Axis("trial"), Axis("valid AUC"), marks)


def _values(
    search: Mapping[str, Any], done: Sequence[Mapping[str, Any]], auc: Sequence[float], found: Worth, name: str
) -> Chart:
    """Values of one key against the valid AUC; a filled dot has the chosen value."""
    rows = [i for i, trial in enumerate(done) if found.key in trial["params"]]
    values = [done[i]["params"][found.key] for i in rows]
    if _numbers(values):
        log = min(values) > 0 and max(values) > WIDE * min(values)
        axis, places = Axis(found.key, log=log), [float(value) for value in values]
    else:
        known = _distinct(values)
        axis, places = Axis(found.key, names=tuple(map(str, known))), [float(known.index(one)) for one in values]
    marks = []
    for kind, tone, chosen in (("rings", "muted", False), ("dots", "t0", True)):
        own = [i for i, value in enumerate(values) if (value == found.chosen) == chosen]
        names = [_spelled(done[rows[i]]) for i in own]
        marks.append(Mark(kind, [places[i] for i in own], [auc[rows[i]] for i in own], tone, names=names))
    title = found.key if found.worth is None else f"{found.key}: worth {found.worth:.4f}"
    return Chart(name, title, axis, Axis("valid AUC"), tuple(marks))


def _spelled(trial: Mapping[str, Any]) -> str:
    settings = ", ".join(f"{key}={setting(value)}" for key, value in trial["params"].items())
    auc = trial["valid"]["auc"]
    return f"trial {trial['number']}: {auc:.4f}; {settings}" if math.isfinite(auc) else settings
