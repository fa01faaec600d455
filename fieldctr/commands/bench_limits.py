"""`fieldctr bench limits`: what the processor can do at most, for `bench train` to be read against."""

from dataclasses import dataclass
from typing import Any, Literal

import torch

from fieldctr import processor
from fieldctr.config import Positive, parse
from fieldctr.cores import usable_cores
from fieldctr.training.limits import KINDS, Speed, bandwidth, speeds
from fieldctr.training.runtime import choose_threads


@dataclass(frozen=True)
class BenchLimitsConfig:
    """The root of `fieldctr bench limits`."""

    data_root: str
    outputs: str
    threads: Positive | Literal["auto"]
    rounds: Positive
    block_mb: Positive


def main(node: dict[str, Any]) -> None:
    """Print the processor's name, a table of matrix products, and the memory's bandwidth."""
    config = parse(BenchLimitsConfig, node, "")
    torch.set_num_threads(choose_threads() if config.threads == "auto" else config.threads)
    print(f"{processor.name()}, {usable_cores()} cores, {torch.get_num_threads()} used; torch {torch.__version__}")
    print(f"{'GFLOP/s a thread':18}{''.join(f'{kind:>20}' for kind in KINDS)}")
    for speed in speeds(config.rounds):
        print(line(speed), flush=True)
    found = ", ".join(f"{name} {rate:.0f}" for name, rate in bandwidth(config.block_mb, config.rounds).items())
    print(f"memory, GB/s       {found}")


def line(speed: Speed) -> str:
    """One library in one precision."""
    numbers = "".join(f"{rate:20.0f}" for rate in speed.gflops)
    return f"{f'{speed.precision} by {speed.library}':18}{numbers}{f'  {speed.without}' if speed.without else ''}"
