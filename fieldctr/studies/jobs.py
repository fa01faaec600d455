"""A job: one call of a function in a process of its own, and how it ended. Engines run jobs; they know nothing else."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

Status = Literal["done", "failed", "again"]


@dataclass(frozen=True)
class Job:
    """What a worker is given. It must not need anything of the process that made it."""

    name: str  # within the study: search/coupon/fat/trial_003
    folder: Path  # of the run
    kind: Literal["stages", "train", "lightgbm", "logistic"]
    words: tuple[str, ...]  # of the call that does the same: model=fat dataset=coupon seed=1
    config_dir: str | None = None
    origin: str = ""  # what found the settings among the words; result.json says it


class Outcome(NamedTuple):
    """How a job ended: done, failed for a reason, or stopped so that it can go on (`again`)."""

    job: Job
    status: Status
    error: str = ""


def call(work: str, job: Job) -> tuple[Status, str]:
    """What a worker does: it imports `module:function` and calls it with the job; gives how it ended and why."""
    module, _, name = work.partition(":")
    return getattr(importlib.import_module(module), name)(job)


class Engine(Protocol):
    """Where jobs run. Entered once for a study; leaving it stops what still runs, which leaves its checkpoints."""

    slots: int  # jobs at a time

    def __enter__(self) -> "Engine": ...
    def __exit__(self, *_: object) -> None: ...
    def start(self, job: Job) -> None: ...
    def wait(self, seconds: float) -> Sequence[Outcome]: ...  # of those that ended; after so long perhaps none
    def stop(self, job: Job) -> None: ...  # ends as `again`
