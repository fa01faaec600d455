"""The output bias at the log odds of train's clicks: no step is spent on the click rate.

At 0.24 % clicks and a rate of 0.001, Adam needs 6,000 steps for the bias alone, and stops long before: LogLoss was four
times that of a constant.
"""

import math

import numpy as np
import torch
from torch import nn

from fieldctr.data.batches import Batches
from fieldctr.data.dataset import Split

ROWS = 8  # samples on which the bias is looked for


def start_at_click_rate(model: nn.Module, train: Split) -> float | None:
    """Add the log odds of train to the output bias, and give them; None where the model has no such bias."""
    bias = output_bias(model, train)
    if bias is None:
        return None
    with torch.no_grad():
        bias += (start := log_odds(train))
    return start


def output_bias(model: nn.Module, train: Split) -> nn.Parameter | None:
    """The weight of one number with which every logit rises one to one; None where the model has none.

    A module needs no hook for it: the slope of the logits tells.
    """
    was_training = model.training
    model.eval()
    inputs = next(Batches(train, batch_size=ROWS, device=next(model.parameters()).device).ordered()).inputs
    single = [weight for weight in model.parameters() if weight.numel() == 1 and weight.requires_grad]
    with torch.enable_grad():
        logit = model(inputs).logit
        slopes = torch.autograd.grad(logit.sum(), single, allow_unused=True) if single else ()
    model.train(was_training)
    for weight, slope in zip(single, slopes, strict=True):
        if slope is not None and math.isclose(float(slope), len(logit), rel_tol=1e-5):
            return weight
    return None


def log_odds(train: Split) -> float:
    """Of a click in train by its weights, with half a sample more of either kind: finite where one is absent."""
    rows, weights = len(train), None if train.weight is None else np.asarray(train.weight, np.float64)
    clicks = rows * float(np.average(np.asarray(train.label, np.float64), weights=weights))
    return math.log((clicks + 0.5) / (rows - clicks + 0.5))
