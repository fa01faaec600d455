"""Jobs as tasks of Ray (https://docs.ray.io), on this machine or on the cluster that RAY_ADDRESS names."""

import importlib
import importlib.util
import os
from typing import Any, Self

from fieldctr import signals
from fieldctr.cores import ONE_THREAD
from fieldctr.errors import UserError
from fieldctr.studies.jobs import Job, Outcome, call
from fieldctr.trust import VARIABLE


class Ray:
    """An engine of at most `slots` tasks, each of one core, or of a share of a GPU. Outputs lie where all see them."""

    def __init__(self, work: str, *, slots: int, num_gpus: float) -> None:
        if not importlib.util.find_spec("ray"):
            raise UserError("engine.name=ray needs its package: pip install 'fieldctr[ray]'")
        ray: Any = importlib.import_module("ray")
        self.ray, self.slots, self.work = ray, slots, work
        self.started = not ray.is_initialized()
        if self.started:
            settings: dict[str, Any] = {"env_vars": ONE_THREAD | {VARIABLE: os.environ.get(VARIABLE, "")}}
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR", runtime_env=settings)
        signals.retake()
        self.task = ray.remote(num_cpus=1, num_gpus=num_gpus, max_retries=0)(call)
        self.running: dict[Any, Job] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for task in self.running:
            self.ray.cancel(task)
        if self.started:
            self.ray.shutdown()

    def start(self, job: Job) -> None:
        job.folder.parent.mkdir(parents=True, exist_ok=True)
        self.running[self.task.remote(self.work, job)] = job

    def wait(self, seconds: float) -> list[Outcome]:
        """How those ended that ended by then."""
        done, _ = self.ray.wait(list(self.running), timeout=seconds) if self.running else ([], [])
        return [self._outcome(task, self.running.pop(task)) for task in done]

    def stop(self, job: Job) -> None:
        for task, running in self.running.items():
            if running == job:
                self.ray.cancel(task)

    def _outcome(self, task: Any, job: Job) -> Outcome:
        errors = self.ray.exceptions
        try:
            return Outcome(job, *self.ray.get(task))
        except (errors.TaskCancelledError, errors.WorkerCrashedError, errors.NodeDiedError) as error:
            return Outcome(job, "again", str(error).splitlines()[0])
        except errors.RayError as error:
            return Outcome(job, "failed", str(error).strip().splitlines()[-1])
