"""What this processor can compute."""

import torch


def native_bf16() -> bool:
    """Whether it multiplies bf16 numbers itself (AVX-512, AMX, ARM); else torch emulates them, slower than fp32."""
    return any(has for name, has in torch.cpu.get_capabilities().items() if name.endswith("bf16"))
