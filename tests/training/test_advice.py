"""A run's doubts: each is said when its cause is there, with a key that exists, and not otherwise."""

import re
from dataclasses import fields
from types import ModuleType
from typing import Any

import pytest

from fieldctr.config import OptimizerConfig, TrainerConfig
from fieldctr.training.advice import advice
from fieldctr.training.trainer import Fit


def fit(*, auc: list[float], logloss: list[float], cut: bool, ne: float = 0.9, every: int = 200) -> Fit:
    history = [
        {"step": every * number, "valid/auc": one, "valid/logloss": other, "valid/ne": ne}
        for number, (one, other) in enumerate(zip(auc, logloss, strict=True), 1)
    ]
    best = max(history, key=lambda record: record["valid/auc"])
    return Fit(int(best["step"]), best, history, {}, 0, 0.0, "", cut)


FINE = {"auc": [0.6, 0.7, 0.69], "logloss": [0.6, 0.5, 0.55], "cut": False}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"cut": True}, None),
        ({"auc": [0.6, 0.7, 0.71], "cut": True}, "best step was the last one, 600"),
        ({"logloss": [0.6, 0.5, 0.49], "cut": True}, "still falling"),
        ({"ne": 1.2}, "NE is 1.2"),
        ({"every": 20}, "average of 40 steps, fewer than the 100"),
    ],
)
def test_each_doubt_has_its_cause(planted: ModuleType, changes: dict[str, Any], words: str | None) -> None:
    told = list(advice(fit(**FINE | changes), planted.trainer_config(ema_decay=0.99)))
    assert len(told) == (words is not None)
    assert all(words in text for text in told if words)
    known = {f"trainer.{one.name}" for one in fields(TrainerConfig)}
    known |= {f"optimizer.{one.name}" for one in fields(OptimizerConfig)}
    for text in told:
        assert set(re.findall(r"(?:trainer|optimizer)\.\w+", text)) <= known
        assert "Try " in text or "`fieldctr" in text


@pytest.mark.parametrize("decay", [None, 1.0, 0.0, 0.5])
def test_short_averages_are_no_doubt(planted: ModuleType, decay: float | None) -> None:
    assert not list(advice(fit(**FINE), planted.trainer_config(ema_decay=decay)))
