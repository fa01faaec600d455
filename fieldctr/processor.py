"""What this processor can compute."""

import torch


def native_bf16() -> bool:
    """Whether it multiplies bf16 numbers itself (AVX-512, AMX, ARM); else torch emulates them, slower than fp32."""
    return any(has for name, has in torch.cpu.get_capabilities().items() if name.endswith("bf16"))


def native_bf16_on(device: torch.device) -> bool:
    """Whether a torch device computes in bf16 by itself; of NVIDIA's GPUs those since Ampere do."""
    return torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" else native_bf16()
