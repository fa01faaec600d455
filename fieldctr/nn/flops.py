"""Count the arithmetic of what happens, by torch's own formulas.

Differs: a dispatch mode of our own instead of torch's FlopCounterMode, whose first use imports the compiler: 4 s.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class FlopCounter(TorchDispatchMode):
    """While it is on, `flops` adds up the operations of all matrix products. The fused attention of a CPU has none."""

    flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        return out

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch wraps the method above in something that imports the compiler
