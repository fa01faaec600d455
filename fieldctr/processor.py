"""What this processor is and can compute."""

import platform
from pathlib import Path

import torch

CPUINFO = Path("/proc/cpuinfo")


def name() -> str:
    """What the system calls it; on Linux with its family and model, for a virtual machine may tell a mere brand."""
    told = platform.processor() or platform.machine()
    if not CPUINFO.exists():
        return told
    pairs = (line.partition(":") for line in CPUINFO.read_text(encoding="utf-8").partition("\n\n")[0].splitlines())
    found = {key.strip(): value.strip() for key, _, value in pairs}
    if "model name" not in found:  # ARM's
        return told
    family = f" (family {found['cpu family']}, model {found['model']})" if "cpu family" in found else ""
    return found["model name"] + family


def native_bf16() -> bool:
    """Whether it multiplies bf16 numbers itself (AVX-512, AMX, ARM); else torch emulates them, slower than fp32."""
    return any(has for name, has in torch.cpu.get_capabilities().items() if name.endswith("bf16"))


def native_bf16_on(device: torch.device) -> bool:
    """Whether a torch device computes in bf16 by itself; of NVIDIA's GPUs those since Ampere do."""
    return torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" else native_bf16()
