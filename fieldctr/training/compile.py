"""torch.compile of a model's dense part."""

from typing import Any

import torch

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
    from torch._inductor import config, cpp_builder, exc  # 2.9 s

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler as error:
        raise UserError(
            "trainer.compile=true needs a C++ compiler, got none: install g++ or clang++, or set trainer.compile=false"
        ) from error
    config.deterministic = deterministic
    # Its cache on disk ignores the processor: code for vectors of 8, compiled for those of 16, writes past their ends.
    torch.compiler.config.cache_key_tag = torch.backends.cpu.get_cpu_capability()
    torch._dynamo.reset()  # code compiled for an earlier model of this process would skip the hooks of a lazy table
    model.backbone.compile(mode="reduce-overhead" if graphs else None)
