"""A model on a whole split: its logits and their exact metrics."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from fieldctr import signals
from fieldctr.data.batches import Batches
from fieldctr.data.dataset import Split
from fieldctr.errors import UserError
from fieldctr.training.causes import causes
from fieldctr.training.metrics import metrics
from fieldctr.training.runtime import Runtime


class Evaluation(NamedTuple):
    """What a model says about a split, and how right it is."""

    metrics: dict[str, float]
    logit: np.ndarray  # (R,) float32, in the split's order


def evaluate(
    model: nn.Module, split: Split, *, batch_size: int, runtime: Runtime, extra: Sequence[str] = ()
) -> Evaluation:
    """Metrics and logits of a split; the model's mode is restored. Raises UserError when a logit is not finite."""
    logit = predict(model, split, batch_size=batch_size, runtime=runtime)
    if not np.isfinite(logit).all():
        bad = int((~np.isfinite(logit)).sum())
        raise UserError(f"{bad} of {len(logit)} logits are not finite numbers. {causes(model, split)}")
    return Evaluation(metrics(split.label, logit, split.group, split.pctr, extra, weight=split.weight), logit)


def predict(model: nn.Module, split: Split, *, batch_size: int, runtime: Runtime) -> np.ndarray:
    """Logits (R,) float32 of a split in its order, without gradient or dropout. Draws no random number.

    A signal that was put off ends it after a batch.
    """
    was_training = model.training
    model.eval()
    logit = torch.empty(len(split), device=runtime.device)
    start = 0
    rows = replace(split, weight=None)  # which a logit does not depend on
    try:
        with torch.inference_mode(), runtime.autocast():
            for batch in Batches(rows, batch_size=batch_size, device=runtime.device).ordered():
                logit[start : start + len(batch.label)] = model(batch.inputs).logit
                start += len(batch.label)
                signals.check()
    finally:
        model.train(was_training)
    return logit.cpu().numpy()
