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
    found = runtime.ranks.once(lambda: metrics(split.label, logit, split.group, split.pctr, extra, weight=split.weight))
    return Evaluation(found, logit)


def predict(model: nn.Module, split: Split, *, batch_size: int, runtime: Runtime) -> np.ndarray:
    """Logits (R,) float32 of a split in its order, without gradient or dropout. Draws no random number.

    A signal that was put off ends it after a batch. Of several ranks each takes every n-th batch, and all get all
    logits, 4 bytes a row: the batches, and so the logits, are those of one process.
    """
    was_training, ranks = model.training, runtime.ranks
    model.eval()
    logit = torch.zeros(len(split), device=runtime.device)
    starts = range(ranks.rank * batch_size, len(split), ranks.world * batch_size)
    rows = replace(split, weight=None)  # which a logit does not depend on
    try:
        with ranks.together(), torch.inference_mode(), runtime.autocast():
            batches = Batches(rows, batch_size=batch_size, device=runtime.device)
            for start, batch in zip(starts, batches.ordered(starts), strict=True):
                logit[start : start + len(batch.label)] = model(batch.inputs).logit
                signals.check()
    finally:
        model.train(was_training)
    return ranks.total(logit).cpu().numpy()
