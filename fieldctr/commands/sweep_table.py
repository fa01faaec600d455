"""The table at the end of a multirun: what each job came to, over seeds where they vary, and whether it was fair."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from fieldctr.analysis.comparison.arms import REPEATS
from fieldctr.analysis.comparison.notes import comparable, unequal
from fieldctr.artifacts import digest
from fieldctr.errors import UserError
from fieldctr.run_folders import by_numbers
from fieldctr.runs import CONFIG, ERROR, RESULT, lasting, load_config, load_result

SEED = re.compile(r"_seed\d+")  # in a job's name
SCORES = (("valid", "auc"), ("test", "auc"), ("test", "logloss"))
STOPPED = "interrupted "  # what error.txt says of a signal begins so


class Done(NamedTuple):
    """A finished job."""

    name: str
    arm: str  # digest of what its seeds have in common
    result: dict[str, Any]


def sweep_table(folder: Path) -> str:
    """A line for each finished job, or for each arm with mean and sd where its seeds vary; then those that are not
    finished: failed with its error, interrupted, or lost (killed); then what makes the arms unequal.
    """
    done, other = [], []
    for job in sorted(sorted(path.parent for path in folder.glob(f"*/{CONFIG}")), key=by_numbers):
        try:
            found = _done(job)
        except UserError as error:
            other.append((job.name, "damaged", str(error)))
            continue
        if found:
            done.append(found)
        else:
            other.append((job.name, *_unfinished(job)))
    arms: dict[str, list[Done]] = {}
    for one in done:
        arms.setdefault(one.arm, []).append(one)
    names = _names(arms)
    width = max(
        (len(name) for name in (*names.values(), *(job[0] for job in other), *(one.name for one in done))), default=3
    )
    rows = _over_seeds(arms, names, width) if len(arms) < len(done) else _each(done, width)
    lines = [*rows, *(f"{name:{width}}  {status:11}  {why}".rstrip() for name, status, why in other)]
    return "\n".join([*lines, *_unfair(arms, names), f"in {folder}"])


def _done(job: Path) -> Done | None:
    if not (job / RESULT).exists():
        return None
    result = load_result(job)
    own = {key: value for key, value in lasting(load_config(job)).items() if key not in REPEATS}
    return Done(job.name, digest(own), result)


def _unfinished(job: Path) -> tuple[str, str]:
    """Its status, and why."""
    if not (job / ERROR).exists():
        return "lost", "killed, or still running elsewhere"
    last = (job / ERROR).read_text(encoding="utf-8").splitlines()[-1]
    return ("interrupted", last.removeprefix(STOPPED)) if last.startswith(STOPPED) else ("failed", last)


def _names(arms: Mapping[str, Sequence[Done]]) -> dict[str, str]:
    """By arm the name of its jobs without their seed; the whole name where that is not an arm's alone."""
    short = {arm: SEED.sub("", jobs[-1].name) for arm, jobs in arms.items()}
    given = list(short.values())
    return {arm: name if given.count(name) == 1 else arms[arm][-1].name for arm, name in short.items()}


def _each(done: Sequence[Done], width: int) -> Iterator[str]:
    yield f"{'job':{width}}  {'status':11}" + "".join(f"  {f'{split} {metric}':>12}" for split, metric in SCORES)
    for job in done:
        yield f"{job.name:{width}}  {'done':11}" + "".join(f"  {_score([job], *key):>12}" for key in SCORES)


def _over_seeds(arms: Mapping[str, Sequence[Done]], names: Mapping[str, str], width: int) -> Iterator[str]:
    head = "".join(f"  {f'{split} {metric}':>9}  {'sd':>6}" for split, metric in SCORES)
    yield f"{'over seeds':{width}}  {'seeds':>11}{head}"
    for arm, jobs in arms.items():
        cells = "".join(f"  {_score(jobs, *key):>9}  {_spread(jobs, *key):>6}" for key in SCORES)
        yield f"{names[arm]:{width}}  {len(jobs):>11}{cells}"


def _score(jobs: Sequence[Done], split: str, metric: str) -> str:
    found = _values(jobs, split, metric)
    return f"{fmean(found):.4f}" if found else "unread"


def _spread(jobs: Sequence[Done], split: str, metric: str) -> str:
    found = _values(jobs, split, metric)
    return f"{stdev(found):.4f}" if len(found) > 1 else "-"


def _values(jobs: Sequence[Done], split: str, metric: str) -> list[float]:
    """A trial of a search has not read test."""
    return [job.result[split][metric] for job in jobs if metric in job.result.get(split, ())]


def _unfair(arms: Mapping[str, Sequence[Done]], names: Mapping[str, str]) -> Iterator[str]:
    """What `fieldctr compare` would say of settings that are of several kinds, for each data set."""
    tables: dict[str, dict[str, str]] = {}
    for arm, jobs in arms.items():
        kind = str(jobs[0].result.get("settings", "unknown"))
        tables.setdefault(str(jobs[0].result.get("dataset")), {})[names[arm]] = kind
    for kinds in tables.values():
        if not all(comparable(one, other) for one, other in combinations(kinds.values(), 2)):
            yield unequal(kinds)
