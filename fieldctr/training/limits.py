"""What this machine can do at most, and how near to it a step and an evaluation come.

What is compared is measured in turn, and in CPU seconds where a CPU computes, so that a neighbour's load counts little.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from fieldctr import processor
from fieldctr.nn.flops import FlopCounter
from fieldctr.nn.products import products_alone
from fieldctr.training.evaluate import evaluate
from fieldctr.training.runtime import SHAPES, SWITCH, Runtime, accurate
from fieldctr.training.trainer import Fitting

WARM_UP = 5  # steps: allocations, first touch of the moments
SQUARE = 1024  # rows and columns of a product that no memory slows
EMULATED = "left out: this processor emulates bf16"
INEXACT = "computes fp32 products in bf16 here"


class Share(NamedTuple):
    """Medians of a piece of work beside its own matrix products, done again with nothing around them."""

    wall_s: float
    busy_s: float  # CPU seconds; of a GPU wall seconds
    products_s: float
    overhead: float  # busy over products: the median of the rounds' ratios
    gflop: float  # of the products
    peak_mb: float  # of memory, without what doing the products again takes


class Speed(NamedTuple):
    """GFLOP/s a thread of products by one library in one precision; or why there are none."""

    precision: str
    library: str
    gflops: tuple[float, ...]  # by kind of product, as KINDS has them
    without: str = ""


KINDS = {
    f"square of {SQUARE}": ((SQUARE, SQUARE), (SQUARE, SQUARE)),
    "layer of a network": SHAPES[0],
    "field matrices": SHAPES[1],
}


def speeds(rounds: int) -> Iterator[Speed]:
    """Both libraries in fp32, and bf16, which oneDNN alone has. torch's switch is afterwards as it was."""
    before = torch.get_float32_matmul_precision()
    try:
        for library, switch in SWITCH.items():
            torch.set_float32_matmul_precision(switch)
            a = torch.linspace(-1, 1, 512 * 256).reshape(512, 256)
            exact = accurate(a @ a.T, a, a.T)
            yield Speed("fp32", library, _gflops(torch.float32, rounds), "" if exact else INEXACT)
    finally:
        torch.set_float32_matmul_precision(before)
    native = processor.native_bf16()
    yield Speed("bf16", "onednn", _gflops(torch.bfloat16, rounds) if native else (), "" if native else EMULATED)


def bandwidth(megabytes: int, rounds: int) -> dict[str, float]:
    """GB/s that all threads together read and write, copying a block and adding two."""
    a, b, out = (torch.rand(megabytes * 2**18) for _ in range(3))
    moved = {"copy": 2 * a.nbytes, "add": 3 * a.nbytes}
    work = {"copy": lambda: out.copy_(a), "add": lambda: torch.add(a, b, out=out)}
    return {
        name: moved[name]
        / 1e9
        * torch.get_num_threads()
        / min(_seconds(action, time.process_time) for _ in range(rounds))
        for name, action in work.items()
    }


def step_share(fitting: Fitting, batches: Iterator, steps: int) -> Share:
    """A training step beside its products."""
    fitting.model.train()
    return share(lambda: fitting.train_step(*next(batches)), fitting.runtime, rounds=steps, warm_up=WARM_UP)


def evaluation_share(fitting: Fitting, rounds: int) -> Share:
    """An evaluation of the fit's validation rows, with its metrics, beside its products."""
    size, runtime = fitting.settings.eval_batch_size, fitting.runtime
    return share(
        lambda: evaluate(fitting.model, fitting.valid, batch_size=size, runtime=runtime), runtime, rounds=rounds
    )


def share(action: Callable[[], object], runtime: Runtime, *, rounds: int, warm_up: int = 0) -> Share:
    """Some work and its products in turn; the first call counts the products."""
    with FlopCounter() as counter:
        action()
    for _ in range(warm_up):
        action()
    peak_mb, alone = runtime.peak_memory_mb(), products_alone(counter.products, runtime.device)
    on_gpu = runtime.device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    rows: list[tuple[float, float, float]] = []
    for _ in range(rounds):
        runtime.synchronize()
        wall, busy = time.perf_counter(), clock()
        action()
        runtime.synchronize()
        wall, busy = time.perf_counter() - wall, clock() - busy
        rows.append((wall, busy, _seconds(alone, clock, runtime.synchronize)))
    overhead = statistics.median(busy / own for _, busy, own in rows)
    return Share(*map(statistics.median, zip(*rows, strict=True)), overhead, counter.flops / 1e9, peak_mb)


def _gflops(dtype: torch.dtype, rounds: int) -> tuple[float, ...]:
    found = []
    for left, right in KINDS.values():
        a, b = torch.randn(left, dtype=dtype), torch.randn(right, dtype=dtype)
        best = min(_seconds(lambda a=a, b=b: a @ b, time.process_time) for _ in range(rounds))
        found.append(2 * a.numel() * b.shape[-1] / 1e9 / best)
    return tuple(found)


def _seconds(
    action: Callable[[], object], clock: Callable[[], float], wait: Callable[[], None] = lambda: None
) -> float:
    wait()
    begin = clock()
    action()
    wait()
    return clock() - begin
