"""Adam's update and its moments for weights whose gradients are dense.

Source: Kingma and Ba 2015 (arXiv:1412.6980), algorithm 1; the L2 term is coupled into the gradient.
Differs: one count of steps for all weights. torch.optim is not used: building any of its optimizers imports the
compiler (2.9 s before the first step), and its kernel is one call.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fieldctr.config import OptimizerConfig


class Adam:
    """Moments and the update of weights whose gradients are dense."""

    def __init__(
        self,
        weights: Mapping[str, nn.Parameter],
        config: OptimizerConfig,
        *,
        tables: set[int],
        lr_scales: Mapping[int, float],
    ) -> None:
        self.config = config
        self.moments = {name: Moments(torch.zeros_like(w), torch.zeros_like(w)) for name, w in weights.items()}
        self.groups: dict[Rates, dict[str, nn.Parameter]] = {}
        for name, weight in weights.items():
            l2 = config.embedding_l2 if id(weight) in tables else config.dense_l2
            self.groups.setdefault(Rates(l2, lr_scales.get(id(weight), 1.0)), {})[name] = weight

    def weights(self) -> list[nn.Parameter]:
        return [weight for group in self.groups.values() for weight in group.values()]

    @torch.no_grad()
    def update(self, lr: float, step: int, scale: Tensor | None) -> None:
        """Step number `step`: one pass over weight, gradient and moments, which also divides by `scale`."""
        for rates, group in self.groups.items():
            gradients = {name: weight.grad for name, weight in group.items() if weight.grad is not None}
            adam_step(
                [group[name] for name in gradients],
                list(gradients.values()),
                [self.moments[name].exp_avg for name in gradients],
                [self.moments[name].exp_avg_sq for name in gradients],
                lr=lr * rates.lr_scale,
                step=step,
                scale=scale,
                l2=rates.l2,
                config=self.config,
            )
            for name in gradients:
                group[name].grad = None

    def tensors(self) -> dict[str, Tensor]:
        """By the names that checkpoints have."""
        exp_avg = {f"first/{name}": moments.exp_avg for name, moments in self.moments.items()}
        return exp_avg | {f"second/{name}": moments.exp_avg_sq for name, moments in self.moments.items()}


class Rates(NamedTuple):
    """What weights of one group share."""

    l2: float
    lr_scale: float  # times the learning rate


class Moments(NamedTuple):
    """Running means of a weight's gradient and of its square."""

    exp_avg: Tensor
    exp_avg_sq: Tensor


def adam_step(
    weights: list[Tensor],
    gradients: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    *,
    lr: float,
    step: int,
    scale: Tensor | None,
    l2: float,
    config: OptimizerConfig,
) -> None:
    """Step number `step`, in place and in one pass. Gradients are divided by `scale` () first, then L2 joins."""
    if not weights:
        return
    steps = torch.full((), step, dtype=torch.float32, device=weights[0].device)
    torch._fused_adam_(
        weights,
        gradients,
        exp_avgs,
        exp_avg_sqs,
        [],
        [steps] * len(weights),
        lr=lr,
        beta1=config.beta1,
        beta2=config.beta2,
        weight_decay=l2,
        eps=config.eps,
        amsgrad=False,
        maximize=False,
        grad_scale=scale,
    )
