"""Jobs as processes of this machine, one thread each; GPUs as slots by CUDA_VISIBLE_DEVICES.

The processes are forked from a server that has imported torch once and computed nothing.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import NamedTuple, Self

from fieldctr import signals
from fieldctr.studies.jobs import Job, Outcome, Status, call

STOP_S = 30.0  # for a job to leave its checkpoint
GPUS = Path("/proc/driver/nvidia/gpus")


class _Running(NamedTuple):
    job: Job
    process: ForkServerProcess
    slot: int


class Local:
    """An engine of `slots` processes. `gpus` are the devices that they share, none to compute on the CPU."""

    def __init__(self, work: str, *, slots: int, gpus: Sequence[str]) -> None:
        self.work, self.slots, self.gpus = work, slots, gpus
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload([work.partition(":")[0]])
        self.running: dict[Connection, _Running] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self.running:
            _ask_to_stop(connection)
        end = time.monotonic() + STOP_S
        while self.running and time.monotonic() < end:
            self.wait(end - time.monotonic())
        for running in self.running.values():
            running.process.kill()

    def start(self, job: Job) -> None:
        """Start a process; its output goes to a file beside the job's folder."""
        slot = min(set(range(self.slots)) - {running.slot for running in self.running.values()})
        mine, theirs = self.context.Pipe()
        device = self.gpus[slot % len(self.gpus)] if self.gpus else ""
        process = self.context.Process(target=_run, args=(self.work, job, theirs, device), name=job.name)
        job.folder.parent.mkdir(parents=True, exist_ok=True)
        process.start()
        theirs.close()
        self.running[mine] = _Running(job, process, slot)

    def wait(self, seconds: float) -> list[Outcome]:
        """How those ended that ended by then."""
        ended = []
        for connection in wait(list(self.running), seconds):
            assert isinstance(connection, Connection)
            running = self.running.pop(connection)
            said: tuple[Status, str] | None = None
            with suppress(EOFError, OSError):
                said = connection.recv()
            connection.close()
            running.process.join(STOP_S)
            ended.append(Outcome(running.job, *(said or _silent(running))))
        return ended

    def stop(self, job: Job) -> None:
        """Ask the job's process to end in order."""
        for connection, running in self.running.items():
            if running.job == job:
                _ask_to_stop(connection)


def _silent(running: _Running) -> tuple[Status, str]:
    """How a process ended that said nothing: by a defect, whose traceback is in its log, or killed."""
    if running.process.exitcode != 1:
        return "again", "its process was killed"
    if not log_of(running.job).exists():
        return "failed", "its process did not begin. A script that runs a study needs: if __name__ == '__main__'"
    lines = log_of(running.job).read_text(encoding="utf-8", errors="replace").split("\n")
    return "failed", next((line for line in reversed(lines) if line.strip()), "it said nothing")


def log_of(job: Job) -> Path:
    """Where the job's output goes."""
    return job.folder.with_name(f"{job.folder.name}.log")


def _ask_to_stop(connection: Connection) -> None:
    with suppress(OSError):  # it has ended
        connection.send("stop")


def _run(work: str, job: Job, connection: Connection, device: str) -> None:
    """What a process does. The terminal's signals are the study's; it stops when the study says so or is gone."""
    os.setsid()
    if device:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    log = os.open(log_of(job), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    outcome: tuple[Status, str] = ("again", "stopped before it began")
    try:
        with signals.handled():
            threading.Thread(target=_obey, args=(connection,), daemon=True).start()
            outcome = call(work, job)
    except signals.Interrupted as stop:
        outcome = ("again", str(stop))
    with suppress(OSError):
        connection.send(outcome)
    sys.stdout.flush()
    os._exit(0)  # no library may hold the process at its exit


def _obey(connection: Connection) -> None:
    """End this process in order when the study asks for it, or has ended itself: then its end of the pipe is closed."""
    with suppress(EOFError, OSError):
        connection.recv()
    os.kill(os.getpid(), signal.SIGTERM)


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them. Torch is not asked: it takes seconds."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [one for one in named.split(",") if one.strip() not in ("", "-1", "NoDevFiles")]
    return [str(i) for i, _ in enumerate(GPUS.iterdir())] if GPUS.is_dir() else []
