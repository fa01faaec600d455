"""The output bias at the log odds of train; that every model's is found stands with the models' tests."""

import math
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from fieldctr.training.first_bias import log_odds, output_bias, start_at_click_rate


def test_log_odds_go_by_weights_and_are_finite(planted: ModuleType) -> None:
    split, times = planted.split(300, 1), np.arange(300) % 3
    repeated = split.take(np.repeat(np.arange(300), times))
    assert len(repeated) == 300
    assert log_odds(replace(split, weight=times.astype(np.float32))) == pytest.approx(log_odds(repeated))
    for label in (np.zeros(300, np.float32), np.ones(300, np.float32)):
        assert math.isfinite(log_odds(replace(split, label=label)))


def test_a_model_without_an_output_bias_stays_as_it_is(planted: ModuleType) -> None:
    model, split = planted.Tiny(seed=1), planted.split(300, 1)
    assert output_bias(model, split) is model.backbone[-1].bias
    model.backbone[-1] = nn.Linear(8, 1, bias=False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert start_at_click_rate(model, split) is None
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training
