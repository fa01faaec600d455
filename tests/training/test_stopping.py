"""When a fit ends: properties of the decisions, on made-up evaluations."""

import random
from types import ModuleType
from typing import Any

import pytest

from fieldctr.config import TrainerConfig
from fieldctr.training.stopping import State, decide, judge, monitored

Metrics = dict[str, float]


def run(settings: TrainerConfig, evaluations: list[Metrics], *, every: int = 50, rate: float = 0.1) -> list[State]:
    """The states after each evaluation, up to the end."""
    state, states = State(lr=rate), []
    for number, metrics in enumerate(evaluations, 1):
        state.step = number * every
        _, gain = judge(state, metrics, settings)
        decide(state, settings, gain=gain, last_step=every * len(evaluations))
        states.append(State(**vars(state)))
        if state.stopped:
            break
    return states


def drawn(seed: int, number: int = 60) -> list[Metrics]:
    draw = random.Random(seed)
    return [{"auc": draw.random(), "logloss": draw.random()} for _ in range(number)]


def settings(planted: ModuleType, **changes: Any) -> TrainerConfig:
    plain = {"patience": 3, "lr_decay": 0.5, "min_lr": 1e-3, "grace_steps": 0, "min_delta": 1e-3}
    return planted.trainer_config(**plain | changes)


def test_what_is_monitored() -> None:
    found = {"auc": 0.7, "logloss": 0.6}
    assert [monitored(found, name) for name in ("auc", "logloss", "auc-logloss")] == [0.7, -0.6, pytest.approx(0.1)]


@pytest.mark.parametrize("gain", ["monitor", "either"])
@pytest.mark.parametrize("seed", range(5))
def test_a_fit_ends_after_both_patiences_and_not_before(planted: ModuleType, gain: str, seed: int) -> None:
    for patience_steps in (0, 200, 1000):
        one = settings(planted, gain=gain, patience_steps=patience_steps)
        states = run(one, drawn(seed))
        for before in states[:-1]:
            assert before.bad_evals < one.patience or before.step - before.gain_step < patience_steps
        end = states[-1]
        assert end.cut or (end.bad_evals >= one.patience and end.step - end.gain_step >= patience_steps)
        assert not end.cut or end.step == 60 * 50


def test_a_dip_of_auc_stops_nothing_while_logloss_falls(planted: ModuleType) -> None:
    dip = [{"auc": auc, "logloss": 0.7 - 0.007 * i} for i, auc in enumerate([0.6, *[0.55] * 12, 0.8])]
    alone, either = (run(settings(planted, gain=gain), dip) for gain in ("monitor", "either"))
    assert (alone[-1].best_score, alone[-1].cut) == (0.6, False)
    assert (either[-1].best_score, either[-1].cut) == (0.8, True)
    assert {state.lr for state in either} == {0.1}


@pytest.mark.parametrize("seed", range(5))
def test_the_best_step_has_the_best_score_whatever_counts_as_a_gain(planted: ModuleType, seed: int) -> None:
    for gain in ("monitor", "either"):
        evaluations = drawn(seed)
        states = run(settings(planted, gain=gain, patience=99, min_delta=0.0), evaluations)
        assert states[-1].best_score == max(one["auc"] for one in evaluations)
        assert evaluations[states[-1].best_step // 50 - 1]["auc"] == states[-1].best_score


@pytest.mark.parametrize("seed", range(5))
def test_settings_without_the_later_keys_decide_as_before_there_were_any(planted: ModuleType, seed: int) -> None:
    """So that a run of then goes on as it began."""
    one = planted.trainer_config(patience=4, lr_decay=0.5, min_lr=1e-3, min_delta=1e-3)
    evaluations, best, bad, rate, expected = drawn(seed), -1.0, 0, 0.1, []
    for number, metrics in enumerate(evaluations, 1):
        if metrics["auc"] > best + one.min_delta:
            best, bad = metrics["auc"], 0
        elif 50 * number >= one.grace_steps:
            bad, rate = bad + 1, max(one.min_lr, rate * one.lr_decay)
        expected.append((bad, rate))
        if bad == one.patience:
            break
    states = run(one, evaluations)
    assert [(state.bad_evals, state.lr) for state in states] == expected
    assert states[-1].stopped == "no gain in 4 evaluations"


@pytest.mark.parametrize("lr_patience", [1, 2, 3])
def test_the_rate_falls_once_for_each_lr_patience_in_a_row(planted: ModuleType, lr_patience: int) -> None:
    flat = [{"auc": 0.6, "logloss": 0.6}] * 7
    states = run(settings(planted, patience=99, lr_patience=lr_patience, min_lr=0.0), flat)
    assert [state.lr for state in states] == [0.1 * 0.5 ** (bad // lr_patience) for bad in range(7)]
