"""Count the arithmetic of what happens: two operations for a multiplication and its addition.

The matrix products are kept as well, as far as their shapes go, so that they can be done again alone.

Differs: a dispatch mode of our own instead of torch's FlopCounterMode, whose first use imports the compiler: 4 s. Even
torch's table of formulas imports Triton, 1 s, so matrix products are counted here and only the rest asks for it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fieldctr.nn.products import Operand, Product

OPERANDS = {"mm": (0, 1), "bmm": (0, 1), "addmm": (1, 2), "baddbmm": (1, 2)}  # which arguments are multiplied
RARE = ("convolution", "conv2d", "attention", "scaled_mm")  # in the names of the other operations that have a formula


class FlopCounter(TorchDispatchMode):
    """While it is on, `flops` adds up the operations of all matrix products. The fused attention of a CPU has none."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        self.products: list[Product] = []

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if torch.is_inference_mode_enabled():
            with self:  # else a layer arrives whole, not as its product
                out = func.decompose(*args, **(kwargs or {}))
            if out is not NotImplemented:
                return out
        out = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        name = packet.__name__
        if name in OPERANDS and packet is getattr(torch.ops.aten, name):
            left, right = (args[index] for index in OPERANDS[name])
            self.flops += 2 * left.numel() * right.shape[-1]
            if left.layout is right.layout is torch.strided:
                self.products.append(Product(Operand.of(left), Operand.of(right)))
        elif any(word in name for word in RARE):
            from torch.utils.flop_counter import flop_registry

            if formula := flop_registry.get(packet):
                self.flops += formula(*args, **(kwargs or {}), out_val=out)
        return out

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch wraps the method above in something that imports the compiler
