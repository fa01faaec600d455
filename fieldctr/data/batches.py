"""Batches gathered straight from a split's matrices: no workers, no copies of the table, one order for every device.

A gather of 4,096 rows costs less than handing them between processes would. On CUDA the split moves to the device when
it fits into a quarter of its free memory; else batches travel through pinned memory while the device computes.
Histories are sliced where the split is, and vectors gathered.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fieldctr.data.dataset import Split
from fieldctr.data.past import places
from fieldctr.errors import UserError
from fieldctr.inputs import Inputs

RESIDENT_SHARE = 0.25  # of the device's free memory


class Batch(NamedTuple):
    """Some samples of a split."""

    inputs: Inputs
    label: Tensor  # (B,) float32
    weight: Tensor | None = None  # (B,) float32, over the mean of the split; None: each sample counts once


class Batches:
    """Batches of a split on `device`; the last one of a pass may be smaller."""

    def __init__(self, split: Split, *, batch_size: int, device: torch.device) -> None:
        self.batch_size, self.device, self.rows = batch_size, device, len(split)
        self.weighted = split.weight is not None
        weight = None if split.weight is None else over_mean(split.weight)
        arrays = [split.ids, split.label, weight, split.values, split.windows, split.past and split.past.events]
        tensors = [torch.from_numpy(array) for array in arrays if array is not None]  # memory-mapped, still on disk
        cpu = torch.device("cpu")
        self.resident = device.type == "cpu" or _fits([*tensors, *(own.on(cpu) for own in split.vectors)], device)
        self.tensors = [tensor.to(device) for tensor in tensors] if self.resident else tensors
        self.vectors = [own.on(device if self.resident else cpu) for own in split.vectors]
        self.vector_columns = [own.column for own in split.vectors]
        self.events = self.tensors.pop() if split.past else None
        self.steps = [_steps(width, self.tensors[-1]) for width in (split.past.widths if split.past else ())]

    def __len__(self) -> int:
        """Batches per pass."""
        return math.ceil(self.rows / self.batch_size)

    def shuffled(self, seed: int, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """All rows in an order that depends on (seed, epoch) alone; the first `start_step` batches are passed over."""
        order = permutation(self.rows, seed, epoch)
        if self.resident:
            order = order.to(self.device)
        for rows in order.split(self.batch_size)[start_step:]:
            yield self._batch([tensor.index_select(0, rows) for tensor in self.tensors])

    def ordered(self) -> Iterator[Batch]:
        """All rows in their order."""
        for start in range(0, self.rows, self.batch_size):
            yield self._batch([tensor[start : start + self.batch_size] for tensor in self.tensors])

    def _batch(self, parts: list[Tensor]) -> Batch:
        if self.events is not None:
            *parts, windows = parts
            past = [_at(self.events, place) for place in places(windows, self.steps)]
            parts[0] = torch.cat([parts[0], *past], dim=1)
        if self.vectors:
            given = parts[2 + self.weighted :]  # values, if any
            looked_up = zip(self.vectors, self.vector_columns, strict=True)
            gathered = [vectors.index_select(0, parts[0][:, column]) for vectors, column in looked_up]
            parts = [*parts[: 2 + self.weighted], torch.cat([*given, *gathered], dim=1)]
        if not self.resident:
            # The host allocator keeps a pinned block until the stream has read it, so none is overwritten too early.
            parts = [part.pin_memory().to(self.device, non_blocking=True) for part in parts]
        ids, label, *values = parts
        weight = values.pop(0) if self.weighted else None
        return Batch(Inputs(ids, *values), label, weight)


def over_mean(weight: np.ndarray) -> np.ndarray:
    """(R,) float32 weights over their mean, so that equal ones are exactly 1; UserError where they sum to nothing."""
    mean = weight.mean(dtype=np.float64)
    if not mean > 0:
        raise UserError(f"the weights of these {len(weight):,} rows sum to 0: nothing could be learned from them")
    return np.divide(weight, mean, out=np.empty(len(weight), np.float32), dtype=np.float64, casting="same_kind")


def permutation(rows: int, seed: int, epoch: int) -> Tensor:
    """(rows,) int32 or int64 order of an epoch."""
    mixed = int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1))
    kind = torch.int32 if rows < 2**31 else torch.int64  # half the memory for all but the largest tables
    return torch.randperm(rows, generator=torch.Generator().manual_seed(mixed), dtype=kind)


def _steps(width: int, windows: Tensor) -> Tensor:
    return torch.arange(width, dtype=windows.dtype, device=windows.device)


def _at(events: Tensor, place: Tensor) -> Tensor:
    return events.index_select(0, place.view(-1)).view_as(place)  # 3x the speed of events[place]


def _fits(tensors: list[Tensor], device: torch.device) -> bool:
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return size <= RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]
