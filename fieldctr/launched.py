"""What torchrun tells each process that it starts, read without torch."""

import os
from typing import NamedTuple

from fieldctr.errors import UserError

TORCHRUN = "TORCHELASTIC_RUN_ID"  # which torchrun alone sets; other launchers set a RANK of their own


class LostRankError(ConnectionError):
    """Another process has ended, so this one cannot go on."""


class Launched(NamedTuple):
    """A process among those that train together."""

    rank: int = 0
    world: int = 1  # how many there are
    local_rank: int = 0  # on this machine
    local_world: int = 1

    def command(self) -> list[str]:
        """What calls fieldctr as this process was called."""
        if self.world == 1:
            return ["fieldctr"]
        machines = [] if self.world == self.local_world else [f"--nnodes={self.world // self.local_world}"]
        return ["torchrun", *machines, f"--nproc-per-node={self.local_world}", "-m", "fieldctr"]


def launched() -> Launched:
    """What torchrun says of this process; one alone where it was started otherwise."""
    if TORCHRUN not in os.environ:
        return Launched()
    return Launched(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")))


def refuse_many(what: str) -> None:
    """UserError for what one process does by itself, where torchrun started several."""
    if (world := launched().world) > 1:
        raise UserError(
            f"{what} is for one process, and torchrun started {world}, which share the work of `train` alone. "
            "Call it without torchrun"
        )
