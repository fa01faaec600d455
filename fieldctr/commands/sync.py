"""`fieldctr sync runs=GLOB`: the W&B runs of finished runs, made anew from what their folders hold."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from fieldctr.config import TrackerConfig, parse
from fieldctr.disk import read_object, write_json
from fieldctr.errors import UserError
from fieldctr.run_folders import find_runs
from fieldctr.runs import METRICS, check_run, load_config, load_result, shown_name
from fieldctr.tracking import Tracker, identity

MARK = "wandb/synced.json"  # in a run's folder: what was made of it
SPLITS = ("valid", "test")


@dataclass(frozen=True)
class SyncConfig:
    """The root of `fieldctr sync`."""

    data_root: str
    outputs: str
    runs: str | list[str]
    mode: Literal["offline", "online"] | None
    project: str | None
    group: str | None


def main(node: dict[str, Any]) -> None:
    """Say of each run what was done; exit code 1 where the tracker failed."""
    config = parse(SyncConfig, node, "")
    finished, unfinished = find_runs([config.runs] if isinstance(config.runs, str) else config.runs)
    if not finished:
        raise UserError(f"runs={config.runs}: none of its {len(unfinished)} runs has finished")
    failed = 0
    for run in finished:
        done = synced(run, tracker_of(run, config))
        failed += done == "failed"
        print(f"{done:8} {run}")
    for run in unfinished:
        print(f"{'left out':8} {run} has not finished")
    if failed:
        print(f"fieldctr: {failed} of {len(finished)} runs are not in the tracker. Call again", file=sys.stderr)
        raise SystemExit(1)


def tracker_of(run: Path, config: SyncConfig) -> TrackerConfig:
    """W&B as the run's own configuration has it, unless the call says otherwise."""
    own = parse(TrackerConfig, load_config(run).get("tracker", {}), "tracker")
    given = {"mode": config.mode, "project": config.project, "group": config.group}
    return replace(own, name="wandb", **{key: value for key, value in given.items() if value is not None})


def synced(run: Path, tracker: TrackerConfig) -> str:
    """Make the run's mirror, which takes the place of what is there; 'is there' where an earlier call made this one."""
    result, config = load_result(run), load_config(run)
    check_run(run, [METRICS])
    chosen = {"mode": tracker.mode, "project": tracker.project, "group": tracker.group, "tags": tracker.tags}
    made = {"id": identity(run, config), **chosen}
    if (run / MARK).exists() and read_object(run / MARK) == made:
        return "is there"
    pictures = {path.stem: path for path in sorted(run.glob("*.png"))}
    with Tracker(tracker, run, shown_name(run), config) as mirror:
        mirror.finish(final_metrics(result), pictures)
    if mirror.failed:
        return "failed"
    write_json(run / MARK, made)
    return "synced"


def final_metrics(result: Mapping[str, Any]) -> dict[str, float]:
    """Metrics of the model that the run kept, as its tracker summarises them; of a search's trial none of test."""
    return {f"{split}/{name}": value for split in SPLITS for name, value in result.get(split, {}).items()}
