"""The machine as chosen once at start: device, threads, matrix-product library, precision.

Nothing is chosen by the load of the moment, and what is measured is remembered, so that two runs agree bit for bit.
"""

import ctypes
import json
import os
import platform
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor

from fieldctr import processor
from fieldctr.artifacts import cached, check_stage
from fieldctr.config import RuntimeConfig
from fieldctr.cores import usable_cores
from fieldctr.disk import write_json
from fieldctr.errors import UserError
from fieldctr.launched import launched
from fieldctr.memory import peak_resident_mb
from fieldctr.training.ranks import ALONE, Ranks

Precision = Literal["fp32", "tf32", "bf16"]
MAX_THREADS = 8  # a CTR model's products are too small to feed more
SWITCH = {"mkl": "highest", "onednn": "medium"}  # torch's names: "medium" sends fp32 products to oneDNN on a CPU
FP32_ERROR = 1e-5  # relative; fp32 gives 1e-6, a library that really computes in bf16 4e-3
FASTER = 1.15  # what oneDNN must gain to replace torch's default
CHOICE = "matmul.json"
SHAPES = (  # of the left and the right factor: an MLP's layer, and FAT's field matrices
    ((2048, 624), (624, 400)),
    ((24, 1024, 64), (24, 64, 256)),
)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


@dataclass(frozen=True)
class Runtime:
    """Where and how this process computes. `start` is the way to get one: it sets torch's global switches."""

    device: torch.device
    threads: int
    matmul: str  # mkl | onednn on a CPU, cuda on a GPU
    precision: Precision
    deterministic: bool
    ranks: Ranks = ALONE

    @classmethod
    def start(
        cls,
        config: RuntimeConfig,
        *,
        precision: Precision,
        deterministic: bool,
        cache: Path,
        ranks: Ranks = ALONE,
    ) -> Self:
        """Choose, set and describe. `cache` remembers the measured matrix-product library of this machine."""
        device = own_device(config.device) if ranks.many else choose_device(config.device)
        threads = choose_threads() if config.threads == "auto" else config.threads
        torch.set_num_threads(threads)
        _keep_freed_memory()
        _check_precision(precision, device)
        matmul = "cuda" if device.type == "cuda" else config.matmul
        if matmul == "auto":
            with ranks.first():
                matmul = remembered_matmul(cache, threads)
        _set_matmul(matmul, tf32=precision == "tf32")
        _set_determinism(deterministic, device)
        _reset_peak(device)
        return cls(device, threads, matmul, precision, deterministic, ranks)

    def autocast(self) -> AbstractContextManager[object]:
        """bf16 products where precision=bf16, else nothing."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def describe(self) -> str:
        """One line: 'cpu, 1 thread, fp32 by mkl, deterministic'."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        order = "deterministic" if self.deterministic else "not deterministic"
        share = f"{self.ranks.world} processes, each " if self.ranks.many else ""
        return f"{share}{name}, {threads}, {self.precision} by {self.matmul}, {order}"

    def synchronize(self) -> None:
        """Wait for the device: for clocks, never in a training step."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def peak_memory_mb(self) -> float:
        """Highest memory since `start`: the GPU's allocations, or the process's resident set on a CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        return peak_resident_mb()

    def matmul_gflops(self, *, size: int, repeats: int) -> float:
        """Best of `repeats` square products in this run's precision, per second of all its threads.

        On a CPU it counts CPU seconds, so a neighbour's load does not lower it.
        """
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        a = torch.randn(size, size, dtype=dtype, device=self.device)
        return 2 * size**3 / 1e9 / min(self._seconds(lambda: a @ a) for _ in range(repeats))

    def _seconds(self, action: Callable[[], Tensor]) -> float:
        clock = time.perf_counter if self.device.type == "cuda" else time.process_time
        self.synchronize()
        begin = clock()
        action()
        self.synchronize()
        return (clock() - begin) / (1 if self.device.type == "cuda" else self.threads)


def choose_device(name: str) -> torch.device:
    """The torch device for auto | cpu | cuda | cuda:N; UserError for a name or a GPU that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()) or (kind == "cpu" and index):
        raise UserError(f"runtime.device={name} is not allowed: expected auto | cpu | cuda | cuda:N")
    count = torch.cuda.device_count()
    if kind == "cuda" and int(index or 0) >= count:
        raise UserError(f"runtime.device={name}: torch sees {count} CUDA devices here. Use runtime.device=auto or cpu")
    return torch.device(name)


def own_device(name: str) -> torch.device:
    """A rank's device, by its number on this machine: each has a GPU of its own, or all have the processor."""
    here = launched()
    if ":" in name:
        raise UserError(
            f"runtime.device={name}: torchrun started {here.world} processes. Use cuda, which gives each its own"
        )
    device = choose_device(name)
    if device.type == "cpu":
        return device
    if torch.cuda.device_count() < here.local_world:
        raise UserError(
            f"torchrun started {here.local_world} processes here, and torch sees {torch.cuda.device_count()} CUDA "
            "devices. Start one for each, or use runtime.device=cpu"
        )
    torch.cuda.set_device(here.local_rank)
    return torch.device("cuda", here.local_rank)


def choose_threads() -> int:
    """Half of the cores that this process may use, from 1 to 8: the rest is often hyper-threads or neighbours.

    Processes that torchrun started on one machine share that half.
    """
    return min(MAX_THREADS, max(1, usable_cores() // 2 // launched().local_world))


def remembered_matmul(cache: Path, threads: int) -> str:
    """'mkl' or 'onednn', measured once per processor, torch version and thread count."""
    key = {
        "choice": "matmul",
        "shapes": SHAPES,
        "torch": torch.__version__,
        "threads": threads,
        "cpu": dict(torch.cpu.get_capabilities()),
    }
    folder = cached(cache, key, lambda folder: write_json(folder / CHOICE, {"matmul": measured_matmul()}))
    check_stage(folder)
    return json.loads((folder / CHOICE).read_text(encoding="utf-8"))["matmul"]


def measured_matmul() -> str:
    """The faster library on a CTR model's products, or torch's default when oneDNN gains little or loses digits."""
    torch_default = torch.get_float32_matmul_precision()
    generator = torch.Generator().manual_seed(0)
    factors = [tuple(torch.randn(shape, generator=generator) for shape in pair) for pair in SHAPES]
    seconds, exact = dict.fromkeys(SWITCH, 0.0), True
    try:
        for a, b in factors:
            found, product = fastest(a, b)
            seconds = {name: seconds[name] + found[name] for name in SWITCH}
            exact = exact and accurate(product, a, b)
    finally:
        torch.set_float32_matmul_precision(torch_default)
    return "onednn" if exact and seconds["onednn"] * FASTER < seconds["mkl"] else "mkl"


def fastest(a: Tensor, b: Tensor) -> tuple[dict[str, float], Tensor]:
    """CPU seconds of a @ b by each library, and the product by the last one, oneDNN. Leaves the switch there."""
    seconds = {name: float("inf") for name in SWITCH}
    for _ in range(15):  # in turn, CPU time, and the best of each: a load on the machine must not decide
        for name, switch in SWITCH.items():
            torch.set_float32_matmul_precision(switch)
            begin = time.process_time()
            product = a @ b
            seconds[name] = min(seconds[name], time.process_time() - begin)
    return seconds, product


def accurate(product: Tensor, a: Tensor, b: Tensor) -> bool:
    """Whether a @ b was computed with fp32's digits, against float64."""
    exact = a.double() @ b.double()
    return float((product - exact).abs().max() / exact.abs().max()) < FP32_ERROR


def _set_matmul(matmul: str, *, tf32: bool) -> None:
    if matmul == "cuda":
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        return
    torch.set_float32_matmul_precision(SWITCH[matmul])
    a = torch.linspace(-1, 1, 512 * 256).reshape(512, 256)
    if matmul == "onednn" and not accurate(a @ a.T, a, a.T):
        torch.set_float32_matmul_precision("highest")
        raise UserError(
            "runtime.matmul=onednn computes fp32 products in bf16 on this processor. Use runtime.matmul=mkl, "
            "or say trainer.precision=bf16"
        )


def _check_precision(precision: Precision, device: torch.device) -> None:
    if precision == "tf32" and device.type == "cpu":
        raise UserError("trainer.precision=tf32 needs a CUDA device, got cpu: use fp32 or bf16")
    if precision == "bf16" and device.type == "cpu" and not processor.native_bf16():
        warnings.warn("trainer.precision=bf16: this processor emulates bf16 and will be slower than fp32", stacklevel=3)


def _keep_freed_memory() -> None:
    """Let glibc reuse large blocks, which it else returns at each free and faults in again: 12 % of a FAT step.

    Price: the process keeps its highest memory until the next run starts, which gives it back first.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.malloc_trim(0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(M_MMAP_THRESHOLD, 2**31 - 1)


def _set_determinism(deterministic: bool, device: torch.device) -> None:
    if deterministic and device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS refuses to be deterministic without
    # The same switch as use_deterministic_algorithms, which imports the compiler first: 2.9 s.
    torch.set_deterministic_debug_mode("error" if deterministic else "default")
    # Its only use is debugging, and it costs a write per new tensor.
    torch.utils.deterministic.fill_uninitialized_memory = False  # ty: ignore[missing-attribute]
    torch.backends.cudnn.benchmark = not deterministic


def _reset_peak(device: torch.device) -> None:
    """Forget the peak of an earlier run in this process (multirun)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
