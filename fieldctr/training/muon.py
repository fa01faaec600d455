"""Muon for the wide matrices of a model: the step is the momentum with all its singular values near 1.

Source: Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/), with the factor of Liu et al. 2025
(arXiv:2502.16982, section 2.2), by which a step is as long as one of Adam at the same rate.
Differs: stacks of matrices, as FAT's field matrices, are taken at once, and a CPU computes in fp32. torch.optim.Muon
takes single matrices, in bf16 alone, which many CPUs emulate; building it imports the compiler (2.9 s).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fieldctr.config import OptimizerConfig

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the source: steep at 0, and near 1 after five iterations
ITERATIONS = 5
SMALLEST_NORM = 1e-7
ADAM_RMS = 0.2  # of a step of Adam at rate 1, about


class Muon:
    """Momenta and the update of matrices whose gradients are dense."""

    def __init__(
        self, weights: Mapping[str, nn.Parameter], config: OptimizerConfig, *, lr_scales: Mapping[int, float]
    ) -> None:
        self.named, self.config = dict(weights), config
        self.rates = {name: lr_scales.get(id(weight), 1.0) * adam_length(weight) for name, weight in weights.items()}
        self.momenta = {name: torch.zeros_like(weight) for name, weight in weights.items()}

    def weights(self) -> list[nn.Parameter]:
        return list(self.named.values())

    @torch.no_grad()
    def update(self, lr: float, scale: Tensor | None) -> None:
        """One step; gradients are divided by `scale` first, then L2 joins."""
        share = self.config.momentum
        for name, weight in self.named.items():
            if weight.grad is None:
                continue
            gradient = weight.grad if scale is None else weight.grad / scale
            if self.config.dense_l2:
                gradient = gradient.add(weight, alpha=self.config.dense_l2)
            momentum = self.momenta[name].lerp_(gradient, 1 - share)
            weight.add_(orthogonal(gradient.lerp(momentum, share)), alpha=-lr * self.rates[name])  # Nesterov's form
            weight.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """By the names that checkpoints have."""
        return {f"momentum/{name}": momentum for name, momentum in self.momenta.items()}


def is_wide(weight: Tensor, width: int) -> bool:
    """Whether it is a matrix, or a stack of such, with so many rows and columns at least."""
    return weight.dim() >= 2 and min(weight.shape[-2:]) >= width


def adam_length(weight: Tensor) -> float:
    """The factor of an orthogonal step by which its numbers are as large as those of Adam's."""
    return ADAM_RMS * float(max(weight.shape[-2:])) ** 0.5


def orthogonal(matrices: Tensor) -> Tensor:
    """Each matrix U S V^T as U f(S) V^T with f(S) within 0.3 of 1, by Newton-Schulz iterations."""
    a, b, c = COEFFICIENTS
    x = matrices.to(torch.bfloat16 if matrices.device.type == "cuda" else matrices.dtype)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True).clamp(min=SMALLEST_NORM)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)
