"""How fast a fit goes: rows of a step, evaluations of an epoch. `auto` takes them from the number of train rows."""

import math
from typing import NamedTuple, Self

from fieldctr.config import TrainerConfig

EPOCH_STEPS = 80  # about so many in an epoch of `auto`: at 5 an epoch, coupon's models ended where they had begun
SMALLEST, LARGEST = 64, 2048  # batches of `auto`
FEW_STEPS = 40  # an epoch of fewer is evaluated once


class Pace(NamedTuple):
    """What a fit on so many rows goes by."""

    batch_size: int
    evals_per_epoch: int

    @classmethod
    def of(cls, settings: TrainerConfig, rows: int) -> Self:
        """The settings' own numbers, and `auto` in numbers: the batch is a power of two."""
        size, times = settings.batch_size, settings.evals_per_epoch
        if size == "auto":
            size = min(LARGEST, max(SMALLEST, 2 ** round(math.log2(max(rows, 1) / EPOCH_STEPS))))
        if times == "auto":
            times = 1 if rows < FEW_STEPS * size else 2
        return cls(size, times)

    def __str__(self) -> str:
        times = "once" if self.evals_per_epoch == 1 else f"{self.evals_per_epoch} times"
        return f"batches of {self.batch_size:,} rows, evaluated {times} an epoch"
