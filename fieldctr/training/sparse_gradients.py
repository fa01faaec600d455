"""Gradients of embedding tables as sums over the rows that a batch read.

A dense gradient of a table costs a fill of the whole table and a slow scatter: 110 of 380 ms in a DeepFM step with 1M
rows on one CPU core. Sorting the rows once and summing runs gives the same numbers in 8 ms.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from fieldctr.nn.embedding import EmbeddingTable


class StepRows(Protocol):
    """Which rows of a table a step updates, U of them, and the gradient of each."""

    def index(self, rows: Tensor) -> Tensor:
        """The rows to update among n row numbers that were read, ascending: (n,) -> (U,)."""

    def at(self, gradient: Tensor, index: Tensor) -> Tensor:
        """A sparse gradient as (U, D) with each row's sum in it once, for norms."""

    def each(self, sums: Tensor, index: Tensor) -> Tensor:
        """What `at` gave with its row's sum at every place of `index`: (U, D)."""


class Distinct(NamedTuple):
    """The U distinct rows among n row numbers, and where each of them stands."""

    index: Tensor  # (U,) int64, ascending
    order: Tensor  # (n,) positions, in the order of their row
    start: Tensor  # (U,) where each row's run begins in `order`


class RowSums:
    """Sums of gradients by row. It remembers the last rows, because the tables of a model mostly read the same."""

    def __init__(self) -> None:
        self.rows = torch.empty(0, dtype=torch.int64)
        self.last_distinct: Distinct | None = None

    def distinct(self, rows: Tensor) -> Distinct:
        """The distinct ones of int64 rows (n,)."""
        if self.last_distinct is None or not torch.equal(rows, self.rows):
            values, order = rows.int().sort(stable=True)  # 32 bits take half the time
            start = torch.cat([rows.new_zeros(1), (values[1:] != values[:-1]).nonzero().squeeze(1) + 1])
            self.rows, self.last_distinct = rows, Distinct(values[start].long(), order, start)
        return self.last_distinct

    def of(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """A sparse gradient's distinct rows (U,) and their sums (U, D)."""
        distinct = self.distinct(gradient._indices()[0])
        return distinct.index, embedding_bag(distinct.order, gradient._values(), distinct.start, mode="sum")

    def index(self, rows: Tensor) -> Tensor:
        return self.distinct(rows).index

    def at(self, gradient: Tensor, index: Tensor) -> Tensor:
        found, sums = self.of(gradient)
        if torch.equal(found, index):
            return sums
        positions = torch.searchsorted(index, found)  # the loss depends on some of the rows only
        return sums.new_zeros(len(index), sums.shape[1]).index_copy_(0, positions, sums)

    def each(self, sums: Tensor, index: Tensor) -> Tensor:
        return sums


class RepeatedRows:
    """Rows with their repetitions, for a device that no step may wait for: U = n, whatever a batch reads.

    How many rows are distinct only the device knows, so none is left out. All places of a row are given one state and
    one gradient, so they end with one result, and writing it more than once changes nothing. Price: 2 to 3 times the
    rows, of a batch with few distinct values more.
    """

    def index(self, rows: Tensor) -> Tensor:
        return rows.sort().values

    def at(self, gradient: Tensor, index: Tensor) -> Tensor:
        """The sum stands at the first place of its row, zeros at the others."""
        first = torch.searchsorted(index, gradient._indices()[0])  # n
        return torch.ops.aten.embedding_dense_backward(gradient._values(), first, len(index), -1, False)

    def each(self, sums: Tensor, index: Tensor) -> Tensor:
        return sums.index_select(0, torch.searchsorted(index, index))


def step_rows(device: torch.device) -> StepRows:
    """Distinct rows on a CPU, which knows their number; elsewhere rows as they were read."""
    return RowSums() if device.type == "cpu" else RepeatedRows()


class BufferedTable:
    """A table whose dense gradient lives in one buffer that stays zero outside the rows of a step.

    On a CPU only: on CUDA counting rows would make every step wait, and a dense gradient is cheap there.
    """

    def __init__(self, table: EmbeddingTable, sums: RowSums) -> None:
        self.table, self.sums = table, sums
        self.buffer = torch.zeros_like(table.weight)
        self.index: Tensor | None = None
        table.sparse = True

    def close(self) -> None:
        """Give the table its dense gradient back."""
        self.table.sparse = False

    def gradient(self) -> Tensor | None:
        """Make the step's dense gradient the weight's; returns the rows of it that are not zero."""
        weight = self.table.weight
        if weight.grad is None or not weight.grad.is_sparse:  # a penalty on the whole table makes it dense
            return weight.grad
        self.index, sums = self.sums.of(weight.grad)
        weight.grad = self.buffer.index_copy_(0, self.index, sums)
        return sums

    def clear(self) -> None:
        """Drop the gradient, and set the buffer's rows back to zero."""
        self.table.weight.grad = None
        if self.index is not None:
            self.buffer.index_fill_(0, self.index, 0)
            self.index = None
