"""Row-wise Adagrad for embedding tables: one number of state for each row, and steps for rows with a gradient.

Source: Duchi, Hazan and Singer 2011 (Adagrad), with one sum for a row instead of one for each of its numbers, as
Mudigere et al. 2022 (arXiv:2104.05158) train their tables:

    s_r += mean_d g_rd^2,   w_r -= lr g_r / (sqrt(s_r) + eps).

A row without a gradient stays where it is, so touching the batch's rows alone is exact. L2 is that of these rows.
"""

import torch
from torch import Tensor

from fieldctr.config import OptimizerConfig
from fieldctr.nn.embedding import EmbeddingTable
from fieldctr.training.sparse_gradients import StepRows


class RowAdagrad:
    """The state and the update of one table."""

    def __init__(self, table: EmbeddingTable, rows: StepRows, config: OptimizerConfig, *, lr_scale: float) -> None:
        self.table, self.rows, self.config, self.lr_scale = table, rows, config, lr_scale
        self.square_sum = torch.zeros(len(table.weight), device=table.weight.device)
        self.index: Tensor | None = None  # the rows of this step
        table.sparse = True

    def close(self) -> None:
        """Give the table its dense gradient back."""
        self.table.sparse = False

    def gradient(self) -> Tensor | None:
        """(U, D) gradients of the step's rows, each row's once; None when nothing was read."""
        gradient = self.table.weight.grad
        if gradient is None:
            return None
        if not gradient.is_sparse:  # a penalty on the whole table
            self.index = torch.arange(len(gradient), device=gradient.device)
            return gradient
        self.index = self.rows.index(gradient._indices()[0])
        return self.rows.at(gradient, self.index)

    @torch.no_grad()
    def update(self, lr: float, gradient: Tensor | None, scale: Tensor | None) -> None:
        """A step at learning rate `lr`: what `gradient` gave is divided by `scale`."""
        index, self.index = self.index, None
        if gradient is None or index is None:
            return
        table = self.table.weight.detach()
        weight, each = table.index_select(0, index), self.rows.each(gradient, index)
        if scale is not None:
            each = each / scale
        if self.config.embedding_l2:
            each = each.add(weight, alpha=self.config.embedding_l2)
        squares = self.square_sum.index_select(0, index) + each.square().mean(1)  # U
        weight.addcdiv_(each, squares.sqrt().add_(self.config.eps).unsqueeze(1), value=-lr * self.lr_scale)
        self.square_sum.index_copy_(0, index, squares)
        table.index_copy_(0, index, weight)
        self.table.weight.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """By the names that checkpoints have."""
        return {"square_sum": self.square_sum}
