"""torch.compile of a model's dense part."""

from typing import Any

import torch

from fieldctr.compiler import require_compiler
from fieldctr.errors import UserError


def compile_backbone(model: Any, *, graphs: bool, deterministic: bool) -> None:
    """Compile the dense part in place, which leaves the names of the weights alone. UserError without a compiler.

    With `graphs`, what a GPU is told for a batch is recorded once, and told again in one piece: UserError without one.
    """
    device = next(model.parameters()).device.type
    if graphs and device != "cuda":
        raise UserError(
            f"trainer.compile=graphs records CUDA graphs, and the device is {device}: set trainer.compile=true or false"
        )
    require_compiler("trainer.compile=true", without="trainer.compile=false")
    from torch._inductor import config

    config.deterministic = deterministic
    torch._dynamo.reset()  # code compiled for an earlier model of this process would skip the hooks of a lazy table
    model.backbone.compile(mode="reduce-overhead" if graphs else None)
