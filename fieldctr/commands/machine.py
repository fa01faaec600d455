"""The machine as a command's configuration wants it."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import torch

from fieldctr.config import RuntimeConfig, TrainerConfig
from fieldctr.training.ranks import ALONE, Ranks
from fieldctr.training.runtime import Runtime


def start_runtime(config: RuntimeConfig, trainer: TrainerConfig, *, outputs: Path, ranks: Ranks = ALONE) -> Runtime:
    """Where and how to compute; what is measured of the machine is remembered below `outputs`."""
    return Runtime.start(
        config,
        precision=trainer.precision,
        deterministic=trainer.deterministic,
        cache=outputs / "machine",
        ranks=ranks,
    )


@contextmanager
def torch_as_it_was() -> Generator[None]:
    """Give torch's global switches and its random numbers back at the end: code around a call from Python has its own.

    Each call sets what it needs by `start_runtime`, so that calls with different settings may follow each other.
    """
    threads, products = torch.get_num_threads(), torch.get_float32_matmul_precision()
    order, benchmark = torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    fills = torch.utils.deterministic.fill_uninitialized_memory  # ty: ignore[missing-attribute]
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(products)
        torch.set_deterministic_debug_mode(order)
        torch.utils.deterministic.fill_uninitialized_memory = fills  # ty: ignore[missing-attribute]
        torch.backends.cudnn.benchmark = benchmark
