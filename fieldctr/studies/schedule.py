"""The jobs of a study in their order: tables and field vectors first, then a cell's search, then its seeds.

What is done is what lies in the folders: a schedule that is made anew goes on where the last one stood.
"""

import json
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fieldctr.disk import read_object, write_json
from fieldctr.runs import METRICS, RESULT, load_result
from fieldctr.studies.jobs import Engine, Job, Outcome
from fieldctr.studies.plan import Cell, StudyConfig, final_job, start_of, trial_job
from fieldctr.studies.search import Objective, Search, score_of
from fieldctr.studies.spaces import Settings

CHOSEN = "chosen.json"  # in the folder of a search
RESTARTS = 3  # of a job whose process was killed: then its machine may not hold it at all
POLL_S = 5.0

State = Literal["open", "running", "done", "failed"]


@dataclass
class CellState:
    """Where a cell stands."""

    cell: Cell
    stage: Job
    search: Search | None  # None: nothing to search
    settings: Settings | None  # chosen, once they are known
    origin: str  # of the settings, as result.json says it
    digest: str  # of the configuration that all its runs share

    def owns(self, name: str) -> bool:
        """Whether a job of this name is one of the cell's trials or seeds."""
        return name.partition("/")[2].rpartition("/")[0] == self.cell.name


class Finished(NamedTuple):
    """What a run that has ended says."""

    valid: Mapping[str, float]
    seconds: float


class Schedule:
    """All jobs of a study and how far they are."""

    def __init__(self, config: StudyConfig, folder: Path, cells: list[CellState], seeds: list[int]) -> None:
        self.config, self.folder, self.cells, self.seeds = config, folder, cells, seeds
        self.states: dict[str, State] = {}
        self.errors: dict[str, tuple[Job, str]] = {}  # of failed jobs, by name
        self.restarts: dict[str, int] = {}
        self.tries: dict[str, int] = {}
        self.results: dict[str, Finished] = {}
        self.pruned: set[str] = set()  # names of trials that were stopped as hopeless
        self.stopping = False

    def ready(self) -> Iterator[Job]:
        """Jobs that can start now, the first cells' first."""
        if self.stopping:
            return
        for state in self.cells:
            for job in self._jobs(state):
                if self._state(job) == "open":
                    yield job

    def started(self, job: Job) -> None:
        self.states[job.name] = "running"

    def ended(self, outcome: Outcome) -> str:
        """Take an outcome in; gives the line to say of it."""
        job = outcome.job
        status, error = outcome.status, outcome.error
        if status == "again" and not self.stopping:
            if job.name in self.pruned:
                self.states[job.name] = "done"
                return f"{job.name}: pruned"
            self.restarts[job.name] = self.restarts.get(job.name, 0) + 1
            if self.restarts[job.name] <= RESTARTS:
                self.states[job.name] = "open"
                return f"{job.name}: {error}; it goes on"
            status, error = "failed", f"{error}, {RESTARTS + 1} times"
        elif status == "again":
            self.states[job.name] = "open"
            return f"{job.name}: stopped; it can go on"
        if status == "failed":
            return self._failed(job, error)
        self.errors.pop(job.name, None)
        self.states[job.name] = "done"
        return f"{job.name}: {self._read(job)}"

    def _failed(self, job: Job, error: str) -> str:
        self.tries[job.name] = self.tries.get(job.name, 0) + 1
        if self.config.on_failure == "retry" and self.tries[job.name] <= self.config.retries:
            self.states[job.name] = "open"
            return f"{job.name}: failed, tried again: {error}"
        self.states[job.name], self.errors[job.name] = "failed", (job, error)
        self.stopping |= self.config.on_failure == "stop"
        return f"{job.name}: FAILED: {error}"

    def _read(self, job: Job) -> str:
        """What the finished job says, in a line; its numbers are remembered."""
        if job.kind == "stages":
            return "done"
        result = load_result(job.folder)
        seconds = sum(result["seconds"].values())
        self.results[job.name] = Finished(result["valid"], seconds)
        split = "test" if "test" in result else "valid"
        return f"{split} AUC {result[split]['auc']:.4f}, {seconds:.0f} s"

    def found(self, job: Job) -> None:
        """Take over a job that had finished before this call."""
        self.states[job.name] = "done"
        self._read(job)

    def _jobs(self, state: CellState) -> Iterator[Job]:
        if self._state(state.stage) != "done":
            yield state.stage
            return
        if state.settings is None:
            yield from self._search_jobs(state)
        if state.settings is not None:
            for seed in self.seeds:
                if state.cell.arm.starts_from and not (start_of(self.folder, state.cell, seed) / RESULT).exists():
                    continue
                yield final_job(self.config, self.folder, state.cell, state.settings, seed, **self._how(state))

    def _search_jobs(self, state: CellState) -> Iterator[Job]:
        """The open trials; when a round has ended, its scores are told and the next is drawn."""
        if state.search is None:
            self._take_settings(state)
            return
        while True:
            jobs = {trial.number: self.trial(state, trial.settings, trial.number) for trial in self._draw(state)}
            if not jobs:
                self._choose(state)
                return
            if not all(self._state(job) in ("done", "failed") for job in jobs.values()):
                yield from jobs.values()
                return
            scores = {number: self._score(job) for number, job in jobs.items()}
            pruned = {number for number, job in jobs.items() if job.name in self.pruned}
            state.search.tell(scores, pruned)

    def _draw(self, state: CellState) -> list[Any]:
        """No more trials are drawn once those that have ended used up the seconds of the cell."""
        assert state.search is not None
        drawn = state.search.trials()
        open_ones = [trial for trial in drawn if trial.state == "open"]
        ended = (self.finished(self.trial(state, one.settings, one.number)) for one in drawn)
        spent = sum(one.seconds for one in ended if one)
        if open_ones or (self.config.seconds is not None and spent >= self.config.seconds):
            return open_ones
        return state.search.draw()

    def trial(self, state: CellState, settings: Settings, number: int) -> Job:
        return trial_job(self.config, self.folder, state.cell, settings, number, **self._how(state))

    def _how(self, state: CellState) -> dict[str, Any]:
        return {"config_dir": state.stage.config_dir, "origin": state.origin}

    def _score(self, job: Job) -> float | None:
        finished = self.finished(job)
        return None if finished is None else score_of(finished.valid, self.config.objective)

    def _choose(self, state: CellState) -> None:
        """The best settings; those that seeds are trained with stay, also where a later call has more trials."""
        assert state.search is not None
        path, best = state.search.folder / CHOSEN, state.search.best()
        kept = read_object(path) if self.seeds and path.exists() else None
        if kept is not None:
            state.settings = kept
        elif best is not None:
            state.settings = best.settings
            if self.seeds:
                write_json(path, best.settings)

    def _take_settings(self, state: CellState) -> None:
        """Of the arm whose search this one shares."""
        other = next(
            one
            for one in self.cells
            if one.cell.arm.name == state.cell.arm.settings_of and one.cell.dataset == state.cell.dataset
        )
        state.settings = other.settings

    def finished(self, job: Job) -> Finished | None:
        """What a job came to, in this call or before."""
        self._state(job)
        return self.results.get(job.name)

    def _state(self, job: Job) -> State:
        """A job that this schedule has not met yet is done where its folder says so."""
        if job.name not in self.states and job.kind != "stages" and (job.folder / RESULT).exists():
            self.found(job)
        return self.states.get(job.name, "open")

    def hopeless(self, running: Mapping[str, Job]) -> list[Job]:
        """Trials that run and lie, after as many evaluations, below the median of the others of their search."""
        jobs = []
        for state in self.cells:
            if state.search is None or state.settings is not None:
                continue
            for one in state.search.trials():
                job = self.trial(state, one.settings, one.number)
                if job.name not in running or job.name in self.pruned:
                    continue
                if state.search.report(one.number, evaluations(job.folder, self.config.objective)):
                    self.pruned.add(job.name)
                    jobs.append(job)
        return jobs

    def counts(self) -> dict[str, int]:
        """Jobs by state; those that are still to be drawn are open."""
        known = list(self.states.values())
        total = self.total()
        counts = {state: known.count(state) for state in ("done", "running", "failed")}
        return {"jobs": total, **counts, "open": max(0, total - sum(counts.values()))}

    def total(self) -> int:
        """How many jobs the whole study has."""
        stages = len({state.stage.name for state in self.cells})
        trials = sum(state.search.num_trials for state in self.cells if state.search)
        return stages + trials + len(self.cells) * len(self.seeds)

    def remaining_s(self) -> float | None:
        """About how many seconds of jobs are left, by those that have ended, of the cell or of all; None at first."""
        seconds = {name: one.seconds for name, one in self.results.items()}
        if not seconds:
            return None
        usual, left = statistics.fmean(seconds.values()), 0.0
        for state in self.cells:
            planned = (state.search.num_trials if state.search else 0) + len(self.seeds)
            ended = [name for name, one in self.states.items() if one in ("done", "failed") and state.owns(name)]
            took = [one for name, one in seconds.items() if state.owns(name)]
            left += (planned - len(ended)) * (statistics.median(took) if took else usual)
        return left


def run(schedule: Schedule, engine: Engine, *, say: Callable[[str], None], changed: Callable[[], None]) -> None:
    """Run all jobs that are ready until none is. `say` gets a line a job, `changed` is called after each change."""
    running: dict[str, Job] = {}
    with engine:
        while True:
            for job in schedule.ready():
                if len(running) >= engine.slots:
                    break
                engine.start(job)
                schedule.started(job)
                running[job.name] = job
            if not running:
                return
            changed()
            for outcome in engine.wait(POLL_S):
                del running[outcome.job.name]
                left = schedule.remaining_s()
                line = schedule.ended(outcome)
                counts = schedule.counts()
                about = "" if left is None else f"; about {duration(left / engine.slots)} left"
                say(f"[{counts['done'] + counts['failed']}/{counts['jobs']}] {line}{about}")
            for job in schedule.hopeless(running) if schedule.config.prune else ():
                engine.stop(job)


def evaluations(folder: Path, objective: Objective) -> list[float]:
    """What a search maximises, at each evaluation of a run so far."""
    path = folder / METRICS
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    records = [json.loads(line) for line in lines if line.endswith("}")]
    return [score_of({key.removeprefix("valid/"): value for key, value in one.items()}, objective) for one in records]


def duration(seconds: float) -> str:
    """'12 min' or '40 s'."""
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
