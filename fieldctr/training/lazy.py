"""Adam for embedding tables that computes only the rows a batch touches, and gives what dense Adam gives.

Source: own derivation from Kingma and Ba 2015, algorithm 1. A row last touched at step t gets no gradient at s > t, so

    m_s = m beta1^(s-t),  v_s = v beta2^(s-t),
    w_s = w_{s-1} - lr_s m_s / (1 - beta1^s) / (sqrt(v_s / (1 - beta2^s)) + eps)
        = w_{s-1} - u c_s r^(s-t)
    with u = m / (sqrt(v) + eps_t),  r = beta1 / sqrt(beta2),  c_s = lr_s sqrt(1 - beta2^s) / (1 - beta1^s)

and all of its missed steps up to n are w_n = w - u G_t, where G_t = sum_{s=t+1..n} c_s r^(s-t) depends on t alone. The
moving average e_n = d_n e_{n-1} + (1 - d_n) w_n of such a row is P_t e + (1 - P_t) w - u H_t in the same way.
Differs: eps_t = eps sqrt(1 - beta2^(t+1)) / sqrt(beta2) is held at its value of the first missed step; exact is a
factor beta2^(-(s-t-1)/2), within 1 % while r^(s-t) still counts, and felt only by rows with sqrt(v) near eps.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fieldctr.config import OptimizerConfig
from fieldctr.nn.embedding import Table
from fieldctr.training.adam import adam_step

FORGOTTEN = 1e-12  # a share of a row's displacement that no float32 sees
FLUSH_ROWS = 1 << 18  # rows caught up at a time: bounds the memory of a flush


class Schedule:
    """G_t, H_t and P_t for every t up to now, in float64: 24 bytes a step."""

    def __init__(self, config: OptimizerConfig, *, averaged: bool) -> None:
        self.config, self.averaged, self.steps = config, averaged, 0
        self.rate = config.beta1 / math.sqrt(config.beta2)
        reach = math.ceil(math.log(FORGOTTEN) / math.log(self.rate)) if self.rate else 1
        self.fading = self.rate ** torch.arange(reach, 0, -1, dtype=torch.float64)  # r^reach .. r^1
        self.known = _fresh(1024)  # t -> G, H, P

    def advance(self, lr: float, keep: float) -> None:
        """Step `self.steps + 1` was taken at learning rate `lr`; the average kept the share `keep` of itself."""
        self.steps += 1
        n, beta1, beta2 = self.steps, self.config.beta1, self.config.beta2
        if n == len(self.known):
            self.known = torch.cat([self.known, _fresh(n)])
        recent = self.known[max(0, n - len(self.fading)) : n, 0]
        recent += lr * math.sqrt(1 - beta2**n) / (1 - beta1**n) * self.fading[-len(recent) :]
        if self.averaged:
            moved, lag, kept = self.known[:n].unbind(1)
            lag.mul_(keep).add_(moved, alpha=1 - keep)
            kept.mul_(keep)

    def tensors(self) -> dict[str, Tensor]:
        return {"known": self.known[: self.steps + 1]}

    def load(self, known: Tensor, steps: int) -> None:
        """Take over what a checkpoint of step `steps` holds."""
        self.steps, self.known = steps, torch.cat([known, _fresh(len(known))])


class Rows(NamedTuple):
    """The state of some rows, gathered: U of them."""

    index: Tensor  # (U,)
    weight: Tensor  # (U, D)
    first: Tensor  # (U, D)
    second: Tensor  # (U, D)
    mean: Tensor | None  # (U, D), the moving average


class LazyTable:
    """Moments, moving average and update of one table. Between a forward pass and its update, rows are `pending`.

    On CUDA it waits for the device once a step: how many rows a batch touches is known there only.
    """

    def __init__(self, table: Table, schedule: Schedule) -> None:
        self.table, self.schedule, self.config = table, schedule, schedule.config
        self.weight = table.weight.detach()
        self.first, self.second = torch.zeros_like(self.weight), torch.zeros_like(self.weight)
        self.mean = self.weight.clone() if schedule.averaged else None
        self.last = torch.zeros(len(self.weight), dtype=torch.int64, device=self.weight.device)  # step of each row
        self.touched = torch.zeros_like(self.last, dtype=torch.bool)
        self.place = torch.zeros_like(self.last)  # of a pending row among the pending
        self.pending: list[Rows] = []
        table.sparse = True
        self.hook = table.register_forward_pre_hook(self.before_forward)

    def close(self) -> None:
        """Give the table its dense gradient back."""
        self.table.sparse = False
        self.hook.remove()

    def before_forward(self, table: nn.Module, arguments: tuple[Tensor]) -> None:
        """Bring the rows that a training batch reads to the present."""
        if not table.training:
            return
        before = self.touched.clone() if self.pending else None  # a table may be read twice in a step
        self.touched[arguments[0].flatten()] = True
        fresh = self.touched if before is None else self.touched & ~before
        index = fresh.nonzero().squeeze(1)
        rows = self.caught_up(index)
        self.weight[index] = rows.weight
        self.place[index] = torch.arange(len(index), device=index.device) + sum(len(r.index) for r in self.pending)
        self.pending.append(rows)

    @torch.no_grad()
    def caught_up(self, index: Tensor) -> Rows:
        """The rows as their missed steps leave them; nothing is written."""
        last = self.last[index]
        moved, lag, kept = self.schedule.known[last].to(self.weight.dtype).unsqueeze(2).unbind(1)  # U,1
        missed = (self.schedule.steps - last).unsqueeze(1).to(self.weight.dtype)  # U,1
        beta1, beta2 = self.config.beta1, self.config.beta2
        eps = self.config.eps * (1 - beta2 ** (last + 1).unsqueeze(1)).sqrt() / math.sqrt(beta2)  # U,1
        weight, first, second = self.weight[index], self.first[index], self.second[index]
        unit = first / (second.sqrt() + eps)
        mean = None if self.mean is None else torch.lerp(weight, self.mean[index], kept).addcmul_(unit, lag, value=-1)
        weight.addcmul_(unit, moved, value=-1)
        return Rows(index, weight, first * beta1**missed, second * beta2**missed, mean)

    def gradient(self) -> Tensor:
        """(U, D) gradients of the pending rows, in their order; zeros where the loss does not depend on them."""
        count, sparse = sum(len(rows.index) for rows in self.pending), self.table.weight.grad
        if sparse is None:
            return self.weight.new_zeros(count, self.weight.shape[1])
        places = self.place[sparse._indices()[0]]
        return torch.ops.aten.embedding_dense_backward(sparse._values(), places, count, -1, False)

    @torch.no_grad()
    def update(self, lr: float, step: int, gradient: Tensor, scale: Tensor | None, keep: float) -> None:
        """Step number `step` for the pending rows; `gradient` (U, D) is divided by `scale`."""
        if not self.pending:
            return
        rows = _joined(self.pending)
        adam_step(
            [rows.weight],
            [gradient],
            [rows.first],
            [rows.second],
            lr=lr,
            step=step,
            scale=scale,
            l2=0.0,
            config=self.config,
        )
        if rows.mean is not None:
            rows.mean.lerp_(rows.weight, 1 - keep)
        self.write(rows, step)
        self.touched[rows.index] = False
        self.pending.clear()
        self.table.weight.grad = None

    @torch.no_grad()
    def flush(self) -> None:
        """Bring every row to the present."""
        for index in torch.arange(len(self.weight), device=self.weight.device).split(FLUSH_ROWS):
            self.write(self.caught_up(index), self.schedule.steps)

    def write(self, rows: Rows, step: int) -> None:
        self.weight[rows.index] = rows.weight
        self.first[rows.index] = rows.first
        self.second[rows.index] = rows.second
        if self.mean is not None and rows.mean is not None:
            self.mean[rows.index] = rows.mean
        self.last[rows.index] = step

    def swap(self) -> None:
        """Exchange the model's raw weight and the average; only right after a flush, and back before a step."""
        weight = self.table.weight
        if self.mean is not None:
            weight.data, self.mean.data = self.mean.data, weight.data

    def tensors(self) -> dict[str, Tensor]:
        found = {"first": self.first, "second": self.second, "last": self.last}
        return found if self.mean is None else found | {"mean": self.mean}


def _fresh(steps: int) -> Tensor:
    """Steps that lie ahead: nothing moved, nothing lags, all of the average is kept."""
    return torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).repeat(steps, 1)


def _joined(pending: list[Rows]) -> Rows:
    if len(pending) == 1:
        return pending[0]
    index, weight, first, second, mean = zip(*pending, strict=True)
    means = [part for part in mean if part is not None]
    return Rows(*map(torch.cat, (index, weight, first, second)), torch.cat(means) if means else None)
