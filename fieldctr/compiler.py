"""The C++ compiler that torch makes code with."""

import torch

from fieldctr.errors import UserError


def require_compiler(setting: str, without: str) -> None:
    """UserError where there is none, which `setting` needs and `without` does without."""
    from torch._inductor import cpp_builder, exc  # 2.9 s

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler as error:
        raise UserError(
            f"{setting} needs a C++ compiler, got none: install g++ or clang++, or set {without}"
        ) from error
    # Its cache on disk ignores the processor: code for vectors of 8, compiled for those of 16, writes past their ends.
    torch.compiler.config.cache_key_tag = torch.backends.cpu.get_cpu_capability()
