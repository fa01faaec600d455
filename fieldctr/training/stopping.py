"""When an evaluation is a gain, when the learning rate falls, and when a fit ends.

A fit ends by convergence: after `patience` evaluations and `patience_steps` steps without a gain. Its epochs are a
budget. AUC often dips at first while LogLoss still falls: gain=either waits for both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fieldctr.config import TrainerConfig

Record = dict[str, float]  # one evaluation: step, epoch, lr, train_loss, seconds, valid/<metric>


@dataclass
class State:
    """What a fit knows besides tensors; JSON in its checkpoint."""

    lr: float
    step: int = 0
    samples: int = 0
    best_step: int = 0
    best_score: float | None = None
    bad_evals: int = 0  # in a row, without a gain
    best_logloss: float | None = None
    gain_step: int = 0  # of the last gain
    history: list[Record] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: {"train": 0.0, "evaluate": 0.0, "checkpoint": 0.0})
    stopped: str = ""
    cut: bool = False  # by its last step


def judge(state: State, metrics: Mapping[str, float], settings: TrainerConfig) -> tuple[bool, bool]:
    """Whether these metrics are the best so far, and whether they are a gain."""
    score, logloss = monitored(metrics, settings.monitor), metrics["logloss"]
    better = state.best_score is None or score > state.best_score + settings.min_delta
    closer = state.best_logloss is None or logloss < state.best_logloss - settings.min_delta
    if better:
        state.best_score, state.best_step = score, state.step
    if closer:
        state.best_logloss = logloss
    return better, better or (closer and settings.gain == "either")


def decide(state: State, settings: TrainerConfig, *, gain: bool, last_step: int) -> None:
    """Learning rate, patience and the end, after an evaluation."""
    if gain:
        state.bad_evals, state.gain_step = 0, state.step
    elif state.step >= settings.grace_steps:
        state.bad_evals += 1
        if state.bad_evals % settings.lr_patience == 0:
            state.lr = min(state.lr, max(settings.min_lr, state.lr * settings.lr_decay))
    if state.bad_evals >= settings.patience and state.step - state.gain_step >= settings.patience_steps:
        state.stopped = f"no gain in {state.bad_evals} evaluations"
    elif state.step == last_step:
        state.stopped, state.cut = f"{settings.max_epochs} epochs are over", True


def monitored(found: Mapping[str, float], monitor: str) -> float:
    """The number to maximise."""
    return {
        "auc": found["auc"],
        "logloss": -found["logloss"],
        "auc-logloss": found["auc"] - found["logloss"],
    }[monitor]
