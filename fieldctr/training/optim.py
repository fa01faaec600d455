"""Adam with coupled L2, clipping by the global norm, and the moving average of the weights.

Source: Kingma and Ba 2015 (arXiv:1412.6980), algorithm 1; the L2 term joins the gradient after clipping, as in LLaCTR's
released code (weight_decay of torch.optim.Adam). Average: Polyak and Juditsky 1992, in its exponential form.
Differs: the average starts from the first weights after a step, not from the initial ones (Adam's bias correction,
algorithm 1, line 9), so that early evaluations do not mix in the random initialisation.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fieldctr.config import OptimizerConfig
from fieldctr.nn.embedding import Table


class Optimizer:
    """One step of Adam for all weights of a model, and their average. No call waits for the device."""

    def __init__(
        self, model: nn.Module, config: OptimizerConfig, *, clip_norm: float | None, ema_decay: float | None
    ) -> None:
        self.names = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.clip_norm = clip_norm
        self.adam = torch.optim.Adam(
            parameter_groups(model, config),
            lr=config.lr,
            betas=(config.beta1, config.beta2),
            eps=config.eps,
            fused=True,  # one pass over weight, gradient and both moments; on a CPU too
        )
        self.average = Average(model, ema_decay) if ema_decay else None

    def step(self, lr: float) -> None:
        """Apply the gradients at learning rate `lr` and clear them."""
        for group in self.adam.param_groups:
            group["lr"] = lr
        if self.clip_norm is not None:
            # Adam divides each gradient by grad_scale (a hook of GradScaler) in its one pass: clipping costs the norm.
            gradients = [weight.grad for weight in self.names.values() if weight.grad is not None]
            self.adam.grad_scale = (global_norm(gradients) / self.clip_norm).clamp_(min=1)  # ty: ignore
        self.adam.step()
        self.adam.zero_grad()
        if self.average:
            self.average.update()

    @contextmanager
    def averaged(self) -> Generator[None]:
        """The model holds the averaged weights inside, the raw ones again outside."""
        if self.average is None:
            yield
            return
        self.average.swap()
        try:
            yield
        finally:
            self.average.swap()

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a later `load` needs, by name."""
        moments = {
            f"adam/{key}/{name}": value
            for name, weight in self.names.items()
            for key, value in self.adam.state.get(weight, {}).items()
        }
        return moments | (self.average.tensors() if self.average else {})

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `tensors` of an equal model gave."""
        for name, value in tensors.items():
            kind, _, rest = name.partition("/")
            if kind == "adam":
                key, _, weight_name = rest.partition("/")
                weight = self.names[weight_name]
                self.adam.state[weight][key] = value.to(weight.device, copy=True)
        if self.average:
            self.average.load(tensors)


class Average:
    """e_t = d_t e_{t-1} + (1 - d_t) w_t with d_t = d (1 - d^(t-1)) / (1 - d^t): the bias-corrected moving average.

    Floating buffers (running statistics) are averaged like weights, so that they fit them.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        state = {name: value for name, value in model.state_dict(keep_vars=True).items() if value.is_floating_point()}
        self.live = list({id(value): value for value in state.values()}.values())  # a shared tensor has two names
        self.mean = [value.detach().clone() for value in self.live]
        self.decay, self.steps = decay, 0

    @torch.no_grad()
    def update(self) -> None:
        self.steps += 1
        share = (1 - self.decay) / (1 - self.decay**self.steps) if self.decay < 1 else 1 / self.steps
        torch._foreach_lerp_(self.mean, self.live, share)

    def swap(self) -> None:
        """Exchange live and averaged values without a copy."""
        for value, mean in zip(self.live, self.mean, strict=True):
            value.data, mean.data = mean.data, value.data

    def tensors(self) -> dict[str, Tensor]:
        return {f"average/{i}": mean for i, mean in enumerate(self.mean)} | {"average/steps": torch.tensor(self.steps)}

    def load(self, tensors: dict[str, Tensor]) -> None:
        self.steps = int(tensors["average/steps"])
        for i, mean in enumerate(self.mean):
            mean.copy_(tensors[f"average/{i}"])


def parameter_groups(model: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Embedding tables and the other weights, each with its own L2."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, Table)}
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in weights if id(weight) in tables], "weight_decay": config.embedding_l2},
        {"params": [weight for weight in weights if id(weight) not in tables], "weight_decay": config.dense_l2},
    ]
    return [group for group in groups if group["params"]]


def global_norm(gradients: list[Tensor]) -> Tensor:
    """Euclidean norm of all gradients as one vector, () on their device."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
