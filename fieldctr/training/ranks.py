"""Several processes that fit one model: each computes a block of every batch, and all take the same step.

torchrun starts them, the ranks, and says who is who. After the backward pass their gradients are summed: those of
dense weights in one all-reduce, those of embedding tables as the rows that were read, gathered in the order of the
ranks. So all ranks have the same gradient to the last bit, whatever the optimizer makes of it, and stay equal. Each
holds the whole model and reads the whole table of samples.
Differs from DistributedDataParallel: a gradient of a table is never dense, and nothing is sent during the backward
pass. The dense part of a CTR model is small.
"""

import contextlib
import os
import re
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from fieldctr.errors import UserError
from fieldctr.launched import LostRankError, launched
from fieldctr.models.hooks import hook
from fieldctr.signals import Interrupted
from fieldctr.training.sparse_gradients import RowSums

T = TypeVar("T")
PATIENCE = timedelta(days=30)  # for rank 0, which prepares a table while the others wait; a rank that ends is noticed


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together. One alone does what it is asked by itself."""

    rank: int = 0
    world: int = 1

    @property
    def many(self) -> bool:
        return self.world > 1

    def size(self, rows: int) -> int:
        """Rows of this rank in a batch of so many."""
        return rows // self.world + (self.rank < rows % self.world)

    def block(self, rows: Tensor) -> Tensor:
        """This rank's block of the row numbers of a batch; where there are too few, the first, which has no share."""
        if not self.many:
            return rows
        size, start = self.size(len(rows)), sum(Ranks(rank, self.world).size(len(rows)) for rank in range(self.rank))
        return rows[start : start + size] if size else rows[:1]

    def share(self, loss: Tensor, rows: int) -> Tensor:
        """This rank's part of the loss of a batch of so many rows, of the mean () over its own; the parts add up."""
        return loss * (self.size(rows) / rows) if self.many else loss

    @torch.no_grad()
    def sum_gradients(self, weights: Iterable[nn.Parameter]) -> None:
        """Give each weight the sum of its gradients over the ranks. The host waits for the number of sparse rows."""
        given = {weight: weight.grad for weight in weights if weight.grad is not None}
        tables = [weight for weight, gradient in given.items() if gradient.is_sparse]
        for table, gradient in zip(tables, self._gathered([given.pop(table) for table in tables]), strict=True):
            table.grad = gradient
        if dense := list(given.values()):
            flat = self.total(torch.cat([gradient.flatten() for gradient in dense]))
            parts = flat.split([gradient.numel() for gradient in dense])
            for gradient, part in zip(dense, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    def _gathered(self, gradients: list[Tensor]) -> list[Tensor]:
        """Sparse gradients with the rows of all ranks; a row that several ranks have stands there several times."""
        if not gradients:
            return []
        sums = RowSums()
        own = [sums.of(gradient) for gradient in gradients]
        counts = torch.stack(self._each(torch.tensor([len(index) for index, _ in own])))  # world, tables
        widths = [2 + gradient.shape[1] for gradient in gradients]  # of a row number, as two float32, and its sums
        sizes = counts * torch.tensor(widths)
        message = torch.cat([torch.cat([_as_floats(index), rows], dim=1).flatten() for index, rows in own])
        message = torch.cat([message, message.new_empty(int(sizes.sum(1).max()) - len(message))])
        told = [
            [
                part.view(-1, width)
                for part, width in zip(of_rank[: sum(own_sizes)].split(own_sizes), widths, strict=True)
            ]
            for of_rank, own_sizes in zip(self._each(message), sizes.tolist(), strict=True)
        ]  # world, tables, (rows, width)
        tables = [torch.cat(parts) for parts in zip(*told, strict=True)]
        return [
            torch.sparse_coo_tensor(_as_rows(table[:, :2])[None], table[:, 2:], gradient.shape, check_invariants=False)
            for table, gradient in zip(tables, gradients, strict=True)
        ]

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over the ranks, in place."""
        if self.many:
            with heard():
                dist.all_reduce(tensor)
        return tensor

    def _each(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all ranks, which are of one shape."""
        tensors = [torch.empty_like(tensor) for _ in range(self.world)]
        with heard():
            dist.all_gather(tensors, tensor)
        return tensors

    def once(self, function: Callable[[], T]) -> T:
        """What rank 0 finds, for all."""
        if not self.many:
            return function()
        found = [None if self.rank else function()]
        with heard():
            dist.broadcast_object_list(found, device=torch.device("cpu"))
        return found[0]  # ty: ignore[invalid-explicit-return]

    @contextmanager
    def first(self) -> Generator[None]:
        """Inside, rank 0 makes what the others find there after it."""
        if self.rank:
            self.wait()
        yield
        if not self.rank:
            self.wait()

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.many:
            self.total(torch.zeros(()))

    @contextmanager
    def together(self) -> Generator[None]:
        """A signal that interrupts one rank inside interrupts all, at the end: so all stop at the same step."""
        if not self.many:
            yield
            return
        number = torch.zeros((), dtype=torch.int64)
        try:
            yield
        except Interrupted as stop:
            number += stop.signum
        with heard():
            dist.all_reduce(number, op=dist.ReduceOp.MAX)
        if number:
            raise Interrupted(int(number))

    def seed(self, *numbers: int) -> int:
        """A seed for this rank's dropout, of the fit's seed, which it is for rank 0, and of what else is given."""
        if not self.rank:
            return numbers[0]
        return int(np.random.SeedSequence([self.rank, *numbers]).generate_state(1, np.uint32)[0])

    def unite(self, model: nn.Module) -> None:
        """Let all ranks begin with the weights of rank 0. UserError for what would differ from one process."""
        if not self.many:
            return
        alone = f"torchrun started {self.world}"
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                raise UserError(f"batch norm would see the rows of one process only, and {alone}. Set batch_norm=false")
            if hook(module, "frozen"):
                what = f"{type(module).__name__} is frozen, which piles up the gradients of one process"
                raise UserError(f"{what}, and {alone}. Train it without torchrun")
        with heard():
            for tensor in model.state_dict().values():
                dist.broadcast(tensor, 0)


ALONE = Ranks()


@contextmanager
def joined(told: int | Literal["auto"]) -> Generator[Ranks]:
    """The ranks that torchrun started, which can reach each other inside; all but rank 0 are silent there.

    `told` is runtime.ranks: UserError where it is another number.
    """
    here = launched()
    if told not in ("auto", here.world):
        raise UserError(
            f"runtime.ranks={told}: this call has {here.world}. Call torchrun --nproc-per-node={told} -m fieldctr "
            "train ..., or leave runtime.ranks=auto"
        )
    if here.world == 1:
        yield ALONE
        return
    with heard():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    try:
        with contextlib.ExitStack() as stack:
            if here.rank:
                nowhere = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
                stack.enter_context(contextlib.redirect_stdout(nowhere))
                stack.enter_context(contextlib.redirect_stderr(nowhere))
            yield Ranks(here.rank, here.world)
    finally:
        dist.destroy_process_group()


def _as_floats(rows: Tensor) -> Tensor:
    """The bits of int64 row numbers: (U,) -> (U, 2) float32."""
    return rows.view(torch.float32).view(-1, 2)


def _as_rows(bits: Tensor) -> Tensor:
    """The row numbers again: (U, 2) -> (U,)."""
    return bits.contiguous().view(torch.int64).squeeze(1)


@contextmanager
def heard() -> Generator[None]:
    """What torch raises where another rank does not answer, in words."""
    try:
        yield
    except RuntimeError as error:
        cause = re.sub(r"^\[\S+\] ", "", str(error).strip()).partition(". ")[0]
        raise LostRankError(
            f"another process of torchrun has ended, or cannot be reached ({cause}). Why stands in its own words "
            "or in torchrun's report; resume=true goes on from the last checkpoint"
        ) from error
