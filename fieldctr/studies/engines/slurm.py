"""Jobs on Slurm through submitit (https://github.com/facebookincubator/submitit): an array is not needed, a job is one.

A job that Slurm preempts or that runs out of its time is submitted again by submitit and goes on from its checkpoint.
"""

import importlib
import importlib.util
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from fieldctr.errors import UserError
from fieldctr.studies.jobs import Job, Outcome, Status, call

POLL_S = 2.0


class Slurm:
    """An engine of at most `slots` submitted jobs. `options` are submitit's: slurm_partition, timeout_min, ..."""

    def __init__(
        self, work: str, *, slots: int, logs: Path, options: Mapping[str, Any], cluster: str = "slurm"
    ) -> None:
        if not importlib.util.find_spec("submitit"):
            raise UserError("engine.name=slurm needs its package: pip install 'fieldctr[slurm]'")
        submitit: Any = importlib.import_module("submitit")
        self.work, self.slots, self.submitit = work, slots, submitit
        try:
            self.executor = submitit.AutoExecutor(folder=logs, cluster=cluster)
            self.executor.update_parameters(**{"cpus_per_task": 1, "timeout_min": 24 * 60, **options})
        except (RuntimeError, NameError, ValueError) as error:
            raise UserError(f"engine.name=slurm: {' '.join(str(error).split())}") from error
        self.running: dict[str, tuple[Job, Any]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for running in self.running.values():
            running[1].cancel()

    def start(self, job: Job) -> None:
        job.folder.parent.mkdir(parents=True, exist_ok=True)
        submitted = self.executor.submit(_Task(self.work, self.submitit.helpers.DelayedSubmission), job)
        self.running[job.name] = job, submitted

    def wait(self, seconds: float) -> list[Outcome]:
        """How those ended that ended by then; Slurm is asked every two seconds."""
        end = time.monotonic() + seconds
        while not (ended := [name for name, (_, one) in self.running.items() if one.done()]):
            if time.monotonic() >= end:
                return []
            time.sleep(min(POLL_S, max(0.0, end - time.monotonic())))
        return [Outcome(*_outcome(*self.running.pop(name))) for name in ended]

    def stop(self, job: Job) -> None:
        self.running[job.name][1].cancel()


class _Task:
    """What submitit runs, and runs again after a preemption."""

    def __init__(self, work: str, again: Any) -> None:
        self.work, self.again = work, again

    def __call__(self, job: Job) -> tuple[Status, str]:
        return call(self.work, job)

    def checkpoint(self, job: Job) -> Any:
        """Submitit calls this when Slurm takes the machine away; the run left its newest checkpoint by then."""
        return self.again(self, job)


def _outcome(job: Job, submitted: Any) -> tuple[Job, Status, str]:
    if submitted.state.startswith(("CANCELLED", "PREEMPTED", "TIMEOUT", "NODE_FAIL")):
        return job, "again", submitted.state
    error = submitted.exception()
    return (job, "failed", _last_line(str(error))) if error else (job, *submitted.result())


def _last_line(error: str) -> str:
    """Of the traceback that submitit sets between two rules."""
    text = error.rpartition("\n---")[0] or error
    return text.strip().splitlines()[-1]
