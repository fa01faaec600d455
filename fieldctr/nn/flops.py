"""Count the arithmetic of what happens: two operations for a multiplication and its addition.

Differs: a dispatch mode of our own instead of torch's FlopCounterMode, whose first use imports the compiler: 4 s. Even
torch's table of formulas imports Triton, 1 s, so matrix products are counted here and only the rest asks for it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

OPERANDS = {"mm": (0, 1), "bmm": (0, 1), "addmm": (1, 2), "baddbmm": (1, 2)}  # which arguments are multiplied
RARE = ("convolution", "conv2d", "attention", "scaled_mm")  # in the names of the other operations that have a formula


class FlopCounter(TorchDispatchMode):
    """While it is on, `flops` adds up the operations of all matrix products. The fused attention of a CPU has none."""

    flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        name = packet.__name__
        if name in OPERANDS and packet is getattr(torch.ops.aten, name):
            left, right = (args[index] for index in OPERANDS[name])
            self.flops += 2 * left.numel() * right.shape[-1]
        elif any(word in name for word in RARE):
            from torch.utils.flop_counter import flop_registry

            if formula := flop_registry.get(packet):
                self.flops += formula(*args, **(kwargs or {}), out_val=out)
        return out

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch wraps the method above in something that imports the compiler
