"""What a study writes of itself: where it stands while it runs, its searches and failures when it has run."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fieldctr.disk import read_object, write_json
from fieldctr.runs import METRICS
from fieldctr.studies.schedule import CellState, Schedule
from fieldctr.studies.spaces import at_edge, words_of

RECORD, STATUS, ANSWER = "record.json", "status.json", "answer.md"


def write_status(schedule: Schedule, slots: int) -> None:
    """status.json: `fieldctr study status` shows it."""
    left = schedule.remaining_s()
    write_json(
        schedule.folder / STATUS,
        {
            "process": os.getpid(),
            "time": time.time(),
            "counts": schedule.counts(),
            "remaining_s": None if left is None else round(left / slots),
            "running": sorted(name for name, state in schedule.states.items() if state == "running"),
            "failed": {name: error for name, (_, error) in schedule.errors.items()},
        },
    )


def write(schedule: Schedule) -> None:
    """record.json: each search with its trials and what it cost, and what failed."""
    content = {
        "searches": [searched(schedule, state) for state in schedule.cells if state.search],
        "failures": [
            {"job": name, "folder": os.path.relpath(job.folder, schedule.folder), "status": "failed", "error": error}
            for name, (job, error) in sorted(schedule.errors.items())
        ],
        "jobs": schedule.total(),
    }
    write_json(schedule.folder / RECORD, content)


def searched(schedule: Schedule, state: CellState) -> dict[str, Any]:
    """One search: its trials, what was chosen, its budget. Seconds are those of the trials' own stages."""
    assert state.search is not None
    trials: list[dict[str, Any]] = []
    for one in state.search.trials():
        job = schedule.trial(state, one.settings, one.number)
        finished = schedule.finished(job)
        seconds = finished.seconds if finished else spent_s(job.folder)
        trials.append(
            {
                "number": one.number,
                "params": one.settings,
                "valid": dict(finished.valid) if finished else None,
                "state": one.state,
                "seconds": seconds,
            }
        )
    states = [one["state"] for one in trials]
    budget = {
        "trials": state.search.num_trials,
        "finished": states.count("done"),
        "failed": states.count("failed"),
        "pruned": states.count("pruned"),
        "seconds": round(sum(one["seconds"] for one in trials), 1),
        "saved_by_pruning_s": saved_s(trials),
    }
    return {
        "dataset": state.cell.dataset,
        "arm": state.cell.arm.name,
        "trials": trials,
        "chosen": state.settings,
        "at_edge": at_edge(state.settings, state.search.space) if state.settings else [],
        "budget": budget,
    }


def spent_s(folder: Path) -> float:
    """Seconds of fitting up to the last evaluation of a run that has not finished."""
    path = folder / METRICS
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return float(json.loads(lines[-1])["seconds"]) if lines else 0.0


def saved_s(trials: list[dict[str, Any]]) -> float:
    """What the pruned trials would have cost besides, had they taken as long as the mean of those that finished."""
    whole = [one["seconds"] for one in trials if one["state"] == "done"]
    pruned = [one["seconds"] for one in trials if one["state"] == "pruned"]
    mean = sum(whole) / len(whole) if whole else 0.0
    return round(sum(max(0.0, mean - seconds) for seconds in pruned), 1)


def edges(folder: Path) -> list[str]:
    """A sentence for each search whose best settings lie at an end of their range."""
    searches = (read_object(folder / RECORD) or {}).get("searches", [])
    return [
        f"the best settings of {one['arm']} on {one['dataset']} lie at an end of what was searched "
        f"({', '.join(one['at_edge'])}): better ones may lie beyond, so widen its space"
        for one in searches
        if one.get("at_edge")
    ]


def chosen(folder: Path) -> list[str]:
    """A line for each search: what it chose."""
    searches = (read_object(folder / RECORD) or {}).get("searches", [])
    return [f"{one['dataset']}/{one['arm']}: {' '.join(words_of(one['chosen'] or {})) or '-'}" for one in searches]


def failures(folder: Path) -> list[dict[str, Any]]:
    """What failed, as record.json has it."""
    return (read_object(folder / RECORD) or {}).get("failures", [])


def failure_table(failed: list[dict[str, Any]]) -> str:
    """A line for each job that failed, and why."""
    width = max(len(one["job"]) for one in failed)
    return "\n".join(["failed jobs:", *(f"  {one['job']:{width}}  {one['error']}" for one in failed)])


def status_text(folder: Path, status: Mapping[str, Any], *, alive: bool) -> str:
    """Where a study stands, for a person."""
    counts = status["counts"]
    left = status["remaining_s"]
    head = f"{folder}: {'running' if alive else 'not running'}; {counts['done']} of {counts['jobs']} jobs done"
    lines = [f"{head}, {counts['running'] if alive else 0} running, {counts['failed']} failed, {counts['open']} open"]
    if alive and left:
        lines.append(f"about {left / 60:.0f} min left" if left >= 90 else f"about {left:.0f} s left")
    if alive:
        lines += [f"  running {name}" for name in status["running"]]
    return "\n".join([*lines, *(f"  failed  {name}: {error}" for name, error in status["failed"].items())])
