"""What rows have without a copy per row: histories, as windows into one log of events, and vectors, by their ids."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

EVENTS_FILE = "events.npy"
Array = TypeVar("Array", np.ndarray, Tensor)


class Past(NamedTuple):
    """The events that the windows of rows point into."""

    events: np.ndarray  # (1 + events,) int32 local ids by history, user and time; the first one, 0, is padding
    widths: tuple[int, ...]  # id columns of each history; histories are the last fields of the schema

    def ids(self, windows: np.ndarray) -> list[np.ndarray]:
        """Windows (n, 2 histories) to each history's ids (n, width)."""
        steps = [np.arange(width, dtype=windows.dtype) for width in self.widths]
        return [self.events[place] for place in places(windows, steps)]


@dataclass(frozen=True)
class Vectors:
    """The vectors of one field: one copy for all splits, and one on each device that asks for it."""

    column: int  # of its ids
    numbers: np.ndarray  # (ids, width) float32; row 0 is zeros
    copies: dict[torch.device, Tensor] = field(default_factory=dict, compare=False)

    def on(self, device: torch.device) -> Tensor:
        """The numbers on a device; on the CPU they stay memory-mapped."""
        if device not in self.copies:
            self.copies[device] = torch.from_numpy(self.numbers).to(device)
        return self.copies[device]


def vectors_file(number: int) -> str:
    """Where those of one of the vector fields lie, by its place among these."""
    return f"vectors.{number}.npy"


def places(windows: Array, steps: Sequence[Array]) -> list[Array]:
    """Positions (n, width) of what windows (n, 2 histories) hold: the histories' starts, then their ends. 0 is padding.

    `steps` counts the columns of each history: 0, 1, ... in the type of the windows.
    """
    found, starts, ends = [], windows[:, : len(steps)], windows[:, len(steps) :]
    for k, step in enumerate(steps):
        place = starts[:, k : k + 1] + step  # n,width
        inside: Any = place < ends[:, k : k + 1]
        found.append(place * inside)
    return found
