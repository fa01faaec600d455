"""What formulas in loops are made of, and weights that hide none of their terms."""

from typing import Any

import torch
from torch import Tensor, nn


def randomized(module: nn.Module) -> Any:
    """All weights drawn: no term stands at zero."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    return module


def dot(a: Tensor, b: Tensor) -> float:
    """The sum of products, one by one."""
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
