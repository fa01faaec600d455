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
from fieldctr.errors import UserError
from fieldctr.nn.embedding import EmbeddingTable
from fieldctr.training.adam import adam_step
from fieldctr.training.sparse_gradients import StepRows

FORGOTTEN = 1e-12  # a share of a row's displacement that no float32 sees
FLUSH_ROWS = 1 << 18  # rows caught up at a time: bounds the memory of a flush


class Schedule:
    """G_t, H_t and P_t for every t up to now, in float64 on the tables' device: 24 bytes a step."""

    def __init__(self, config: OptimizerConfig, device: torch.device, *, averaged: bool) -> None:
        self.config, self.averaged, self.steps = config, averaged, 0
        self.rate = config.beta1 / math.sqrt(config.beta2)
        reach = math.ceil(math.log(FORGOTTEN) / math.log(self.rate)) if self.rate else 1
        steps = torch.arange(reach, 0, -1, dtype=torch.float64, device=device)
        self.powers = self.rate**steps  # r^reach .. r^1
        self.ghp = _fresh(1024, device)  # t -> G_t, H_t, P_t

    def advance(self, lr: float, decay: float) -> None:
        """Step n = `self.steps` + 1 was taken at learning rate `lr`, with `decay` = d_n of the average."""
        self.steps += 1
        n, beta1, beta2 = self.steps, self.config.beta1, self.config.beta2
        if n == len(self.ghp):
            self.ghp = torch.cat([self.ghp, _fresh(n, self.ghp.device)])
        recent_g = self.ghp[max(0, n - len(self.powers)) : n, 0]
        recent_g += lr * math.sqrt(1 - beta2**n) / (1 - beta1**n) * self.powers[-len(recent_g) :]
        if self.averaged:
            g, h, p = self.ghp[:n].unbind(1)
            h.mul_(decay).add_(g, alpha=1 - decay)
            p.mul_(decay)

    def tensors(self) -> dict[str, Tensor]:
        """By the names that checkpoints have."""
        return {"known": self.ghp[: self.steps + 1]}

    def load(self, ghp: Tensor, steps: int) -> None:
        """Take over what a checkpoint of step `steps` holds."""
        device = self.ghp.device
        self.steps, self.ghp = steps, torch.cat([ghp.to(device), _fresh(len(ghp), device)])


class Rows(NamedTuple):
    """The state of some rows, gathered: U of them, and what stands there twice has one state."""

    index: Tensor  # (U,)
    weight: Tensor  # (U, D)
    exp_avg: Tensor  # (U, D), m
    exp_avg_sq: Tensor  # (U, D), v
    mean: Tensor | None  # (U, D), the moving average


class LazyTable:
    """Moments, moving average and update of one table. Between a forward pass and its update, rows are `pending`."""

    def __init__(self, table: EmbeddingTable, schedule: Schedule, rows: StepRows) -> None:
        self.table, self.schedule, self.rows, self.config = table, schedule, rows, schedule.config
        self.weight = table.weight.detach()
        self.exp_avg, self.exp_avg_sq = torch.zeros_like(self.weight), torch.zeros_like(self.weight)
        self.mean = self.weight.clone() if schedule.averaged else None
        self.last = torch.zeros(len(self.weight), dtype=torch.int64, device=self.weight.device)  # step of each row
        self.reads: list[Tensor] = []
        self.pending: Rows | None = None
        table.sparse = True
        self.hook = table.register_forward_pre_hook(self.before_forward)

    def close(self) -> None:
        """Give the table its dense gradient back."""
        self.table.sparse = False
        self.hook.remove()

    @torch.no_grad()
    def before_forward(self, table: nn.Module, arguments: tuple[Tensor]) -> None:
        """Bring the rows that a training batch reads to the present."""
        if not table.training:
            return
        self.reads.append(arguments[0].flatten().long())
        if self.pending:  # the step reads the table again: start over with all of its rows
            self.write(self.pending, self.schedule.steps)
        self.pending = self.caught_up(self.rows.index(torch.cat(self.reads)))
        self.weight.index_copy_(0, self.pending.index, self.pending.weight)

    @torch.no_grad()
    def caught_up(self, index: Tensor) -> Rows:
        """The rows as their missed steps leave them; nothing is written."""
        last = self.last.index_select(0, index)
        ghp = self.schedule.ghp[last].to(self.weight.dtype)
        g, h, p = ghp.unsqueeze(2).unbind(1)  # U,1
        missed = (self.schedule.steps - last).unsqueeze(1).to(self.weight.dtype)  # U,1
        beta1, beta2 = self.config.beta1, self.config.beta2
        eps = self.config.eps * (1 - beta2 ** (last + 1).unsqueeze(1)).sqrt() / math.sqrt(beta2)  # U,1
        weight = self.weight.index_select(0, index)
        exp_avg = self.exp_avg.index_select(0, index)
        exp_avg_sq = self.exp_avg_sq.index_select(0, index)
        u = exp_avg / (exp_avg_sq.sqrt() + eps)
        mean = (
            None
            if self.mean is None
            else torch.lerp(weight, self.mean.index_select(0, index), p).addcmul_(u, h, value=-1)
        )
        weight.addcmul_(u, g, value=-1)
        return Rows(index, weight, exp_avg * beta1**missed, exp_avg_sq * beta2**missed, mean)

    @torch.no_grad()
    def read_elsewhere(self) -> None:
        """Let all rows of the gradient be pending, among them those that other ranks read."""
        gradient = self.table.weight.grad
        if self.pending is None or gradient is None or not gradient.is_sparse:
            return
        self.write(self.pending, self.schedule.steps)
        self.pending = self.caught_up(self.rows.index(gradient._indices()[0]))

    def gradient(self) -> Tensor | None:
        """(U, D) gradients of the pending rows, in their order and each row's once; None when nothing was read."""
        gradient, self.reads = self.table.weight.grad, []
        if self.pending is None or gradient is None:
            return None
        if not gradient.is_sparse:
            raise UserError(
                "optimizer.embedding_update=lazy cannot be had with a penalty on a whole embedding table: "
                "every row has a gradient at every step. Set optimizer.embedding_update=dense"
            )
        return self.rows.at(gradient, self.pending.index)

    @torch.no_grad()
    def update(self, lr: float, step: int, gradient: Tensor | None, scale: Tensor | None, decay: float) -> None:
        """Step number `step` for the pending rows: what `gradient` gave, over `scale`; `decay` is the average's."""
        rows, self.pending = self.pending, None
        if rows is None:
            return
        adam_step(
            [rows.weight],
            [torch.zeros_like(rows.weight) if gradient is None else self.rows.each(gradient, rows.index)],
            [rows.exp_avg],
            [rows.exp_avg_sq],
            lr=lr,
            step=step,
            scale=scale,
            l2=0.0,
            config=self.config,
        )
        if rows.mean is not None:
            rows.mean.lerp_(rows.weight, 1 - decay)
        self.write(rows, step)
        self.table.weight.grad = None

    @torch.no_grad()
    def flush(self) -> None:
        """Bring every row to the present."""
        for index in torch.arange(len(self.weight), device=self.weight.device).split(FLUSH_ROWS):
            self.write(self.caught_up(index), self.schedule.steps)

    def write(self, rows: Rows, step: int) -> None:
        """Put rows back, as of `step`."""
        self.weight.index_copy_(0, rows.index, rows.weight)
        self.exp_avg.index_copy_(0, rows.index, rows.exp_avg)
        self.exp_avg_sq.index_copy_(0, rows.index, rows.exp_avg_sq)
        if self.mean is not None and rows.mean is not None:
            self.mean.index_copy_(0, rows.index, rows.mean)
        self.last.index_fill_(0, rows.index, step)

    def swap(self) -> None:
        """Exchange the model's raw weight and the average; only right after a flush, and back before a step."""
        weight = self.table.weight
        if self.mean is not None:
            weight.data, self.mean.data = self.mean.data, weight.data

    def tensors(self) -> dict[str, Tensor]:
        """By the names that checkpoints have."""
        tensors = {"first": self.exp_avg, "second": self.exp_avg_sq, "last": self.last}
        return tensors if self.mean is None else tensors | {"mean": self.mean}


def _fresh(steps: int, device: torch.device) -> Tensor:
    """(steps, 3) G, H and P of steps that lie ahead: 0, 0 and 1."""
    ghp = torch.zeros(steps, 3, dtype=torch.float64, device=device)
    ghp[:, 2] = 1
    return ghp
