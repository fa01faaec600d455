"""Batches gathered straight from a split's matrices: no workers, no copies of the table, one order for every device.

A gather of 4,096 rows costs less than handing them between processes would. On CUDA the split moves to the device when
it fits into a quarter of its free memory; else batches travel through pinned memory while the device computes.
Histories are sliced where the split is, and vectors gathered.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fieldctr.data.dataset import Split
from fieldctr.data.lookups import event_positions
from fieldctr.errors import UserError
from fieldctr.inputs import Inputs

RESIDENT_SHARE = 0.25  # of the device's free memory


class Batch(NamedTuple):
    """Some samples of a split."""

    inputs: Inputs
    label: Tensor  # (B,) float32
    weight: Tensor | None = None  # (B,) float32, over the mean of the split; None: each sample counts once


class Rows(NamedTuple):
    """What a split has of some rows."""

    ids: Tensor
    label: Tensor
    weight: Tensor | None
    values: Tensor | None
    windows: Tensor | None

    def map(self, change: Callable[[Tensor], Tensor]) -> "Rows":
        """Each tensor changed."""
        return Rows(*(None if tensor is None else change(tensor) for tensor in self))  # ty: ignore


class Batches:
    """Batches of a split on `device`; the last one of a pass may be smaller."""

    def __init__(self, split: Split, *, batch_size: int, device: torch.device) -> None:
        self.batch_size, self.device, self.num_rows = batch_size, device, len(split)
        weight = None if split.weight is None else over_mean(split.weight)
        arrays = (split.ids, split.label, weight, split.values, split.windows)
        rows = Rows(*(None if array is None else torch.from_numpy(array) for array in arrays))  # ty: ignore
        events = None if split.histories is None else torch.from_numpy(split.histories.events)
        cpu = torch.device("cpu")
        on_disk = [tensor for tensor in (*rows, events) if tensor is not None]  # memory-mapped
        vectors = [field.on(cpu) for field in split.vectors]
        self.resident = device.type == "cpu" or _fits([*on_disk, *vectors], device)
        home = device if self.resident else cpu
        self.rows = rows.map(lambda tensor: tensor.to(home))
        self.events = None if events is None else events.to(home)
        self.vectors = [(field.column, field.on(home)) for field in split.vectors]
        widths = split.histories.widths if split.histories else ()
        self.steps = [_steps(width, self.rows.windows) for width in widths if self.rows.windows is not None]

    def __len__(self) -> int:
        """Batches of one pass."""
        return math.ceil(self.num_rows / self.batch_size)

    def rows_of(self, number: int) -> int:
        """Rows of a batch of a pass."""
        return min(self.batch_size, self.num_rows - number * self.batch_size)

    def shuffled(
        self, seed: int, epoch: int, start_step: int = 0, *, part: Callable[[Tensor], Tensor] = lambda rows: rows
    ) -> Iterator[Batch]:
        """All rows in an order that depends on (seed, epoch) alone; the first `start_step` batches are passed over.

        `part` chooses among the row numbers of a batch.
        """
        order = permutation(self.num_rows, seed, epoch)
        if self.resident:
            order = order.to(self.device)
        for chosen in order.split(self.batch_size)[start_step:]:
            rows = part(chosen)
            yield self._batch(self.rows.map(lambda tensor, rows=rows: tensor.index_select(0, rows)))

    def ordered(self, starts: Iterable[int] | None = None) -> Iterator[Batch]:
        """All rows in their order, or the batches that begin at `starts`."""
        for start in range(0, self.num_rows, self.batch_size) if starts is None else starts:
            stop = start + self.batch_size
            yield self._batch(self.rows.map(lambda tensor, start=start, stop=stop: tensor[start:stop]))

    def _batch(self, rows: Rows) -> Batch:
        if self.events is not None and rows.windows is not None:
            histories = [_at(self.events, positions) for positions in event_positions(rows.windows, self.steps)]
            rows = rows._replace(ids=torch.cat([rows.ids, *histories], dim=1), windows=None)
        if self.vectors:
            values = [] if rows.values is None else [rows.values]
            gathered = [vectors.index_select(0, rows.ids[:, column]) for column, vectors in self.vectors]
            rows = rows._replace(values=torch.cat([*values, *gathered], dim=1))
        if not self.resident:
            # The host allocator keeps a pinned block until the stream has read it, so none is overwritten too early.
            rows = rows.map(lambda tensor: tensor.pin_memory().to(self.device, non_blocking=True))
        return Batch(Inputs(rows.ids, rows.values), rows.label, rows.weight)


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


def _at(events: Tensor, positions: Tensor) -> Tensor:
    return events.index_select(0, positions.view(-1)).view_as(positions)  # 3x the speed of events[positions]


def _fits(tensors: list[Tensor], device: torch.device) -> bool:
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return size <= RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]
