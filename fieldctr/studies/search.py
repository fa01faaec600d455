"""A search: optuna draws settings from a space, trials train them, their valid metrics come back.

Trials are drawn in rounds of fixed size, and a round is told to optuna only when all of it is done, in the order of its
numbers. So what is drawn depends on the space, the seed and the earlier rounds alone: not on the number of workers, not
on which of them was faster, not on where a call was stopped. The journal beside the trials is optuna's own storage.
"""

import itertools
import math
import os
import random
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.pruners import MedianPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState, create_trial

from fieldctr.disk import replacing
from fieldctr.errors import UserError
from fieldctr.studies.spaces import Settings, Space, decoded, encoded

JOURNAL = "journal.jsonl"
ROUND = 4  # trials that are drawn from the same knowledge
SEEDS = 2**32
WARM_UP = 2  # evaluations before a trial can be given up

Sampler = Literal["tpe", "random", "grid"]
State = Literal["open", "done", "failed", "pruned"]
STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "done",
    TrialState.FAIL: "failed",
    TrialState.PRUNED: "pruned",
}
Objective = Literal["auc", "logloss", "auc-logloss"]


class Trial(NamedTuple):
    """What one trial came to."""

    number: int
    settings: Settings
    state: State
    score: float | None  # of the objective; larger is better


class Search:
    """One arm's trials on one data set, in `folder`; the process that has the study's lock is the only one here."""

    def __init__(
        self,
        folder: Path,
        space: Space,
        *,
        sampler: Sampler,
        trials: int,
        seed: int,
        start: Mapping[str, Any],
    ) -> None:
        """`start` has the values that the configuration brings: the first trial, where they lie in the space.

        Nothing is opened yet: another process may have the study, or a later arm be wrong.
        """
        self.folder, self.space, self.sampler, self.seed = folder, space, sampler, seed
        self.points = grid(space, seed) if sampler == "grid" else [encoded(start, space)]
        self.num_trials = min(trials, len(self.points)) if sampler == "grid" else trials

    @cached_property
    def study(self) -> optuna.Study:
        """Optuna's, from the journal. Trials that failed are open again."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder.mkdir(parents=True, exist_ok=True)
        journal = self.folder / JOURNAL
        _mend(journal)
        study = _open(journal)
        failed = any(one.state == TrialState.FAIL for one in study.get_trials(deepcopy=False))
        return _reopen(journal, study) if failed else study

    def trials(self) -> list[Trial]:
        """All that were drawn, by number."""
        return [
            Trial(one.number, decoded(one.params, self.space), STATES.get(one.state, "open"), one.value)
            for one in self.study.get_trials(deepcopy=False)
        ]

    def draw(self) -> list[Trial]:
        """The open trials; those of the next round are drawn when all others have ended. None at the end."""
        drawn = self.trials()
        begun = len(drawn) % ROUND  # trials of a round whose drawing was stopped
        whole = not begun and any(trial.state == "open" for trial in drawn)
        more = 0 if whole else ROUND - begun
        for number in range(len(drawn), min(len(drawn) + more, self.num_trials)):
            self.study.sampler = self._sampler(number)
            if number < len(self.points) and (point := self.points[number]) is not None:
                self.study.enqueue_trial(point)
            self.study.ask(self.space)
        return [trial for trial in self.trials() if trial.state == "open"]

    def tell(self, scores: Mapping[int, float | None], pruned: frozenset[int] | set[int] = frozenset()) -> None:
        """How the open round ended: scores by number, None for trials that failed."""
        for number in sorted(scores):
            score = scores[number]
            if number in pruned:
                self.study.tell(number, state=TrialState.PRUNED)
            elif score is None or not math.isfinite(score):
                self.study.tell(number, state=TrialState.FAIL)
            else:
                self.study.tell(number, score)

    def report(self, number: int, scores: Sequence[float]) -> bool:
        """Take in a running trial's evaluations so far; whether optuna's median rule gives it up."""
        one = self.study.get_trials(deepcopy=False)[number]
        trial = optuna.Trial(self.study, one._trial_id)
        self.study.pruner = MedianPruner(n_startup_trials=ROUND, n_warmup_steps=WARM_UP)
        for step, score in enumerate(scores):
            if step not in one.intermediate_values:
                trial.report(score, step)
        return trial.should_prune()

    def best(self) -> Trial | None:
        """The trial with the best score, the first of equal ones; None where none has one."""
        scored = [trial for trial in self.trials() if trial.state == "done" and trial.score is not None]
        return max(scored, key=lambda trial: (trial.score, -trial.number), default=None)

    def _sampler(self, number: int) -> BaseSampler:
        """A sampler for this draw alone: its state is its seed, so that a restart draws the same."""
        seed = (self.seed + 7919 * number) % SEEDS
        return TPESampler(seed=seed) if self.sampler == "tpe" else RandomSampler(seed)


def _open(journal: Path) -> optuna.Study:
    backend = JournalFileBackend(str(journal), lock_obj=JournalFileOpenLock(str(journal)))
    return optuna.create_study(
        storage=JournalStorage(backend), study_name="search", direction="maximize", load_if_exists=True
    )


def _reopen(journal: Path, before: optuna.Study) -> optuna.Study:
    """The same study with its failed trials open again: a call that goes on tries them once more."""
    with replacing(journal) as temporary:
        study = _open(temporary)
        for one in before.get_trials(deepcopy=False):
            state = TrialState.RUNNING if one.state == TrialState.FAIL else one.state
            study.add_trial(
                create_trial(state=state, value=one.value, params=one.params, distributions=one.distributions)
            )
        _mend(temporary)
    return _open(journal)


def _mend(journal: Path) -> None:
    """Take away what a killed process left: half a line at the end, and its lock, for the study's lock is ours."""
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
    content = journal.read_bytes() if journal.exists() else b""
    if content and not content.endswith(b"\n"):
        os.truncate(journal, content.rfind(b"\n") + 1)


def grid(space: Space, seed: int) -> list[dict[str, Any]]:
    """All points of the space in an order drawn by `seed`; UserError for a key that has no end of values."""
    values = [_values(key, kind) for key, kind in space.items()]
    points = [dict(zip(space, point, strict=True)) for point in itertools.product(*values)]
    random.Random(seed).shuffle(points)
    return points


def _values(key: str, kind: Any) -> list[Any]:
    if isinstance(kind, CategoricalDistribution):
        return list(kind.choices)
    if kind.log or kind.step is None:
        raise UserError(f"sampler=grid needs a list or a step for '{key}': no grid covers an interval")
    count = 1 + math.floor((kind.high - kind.low) / kind.step + 1e-9)
    return [kind.low + i * kind.step for i in range(count)]


def score_of(valid: Mapping[str, float], objective: Objective) -> float:
    """What a search maximises, from a trial's metrics of valid."""
    return {
        "auc": lambda: valid["auc"],
        "logloss": lambda: -valid["logloss"],
        "auc-logloss": lambda: valid["auc"] - valid["logloss"],
    }[objective]()
