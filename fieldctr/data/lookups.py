"""What rows have without a copy per row: histories, as windows into one log of events, and vectors, by their ids."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

EVENTS_FILE = "events.npy"
Array = TypeVar("Array", np.ndarray, Tensor)


class HistoryEvents(NamedTuple):
    """The events of all histories, into which the windows of rows point."""

    events: np.ndarray  # (1 + events,) int32 local ids by history, user and time; the first one, 0, is padding
    widths: tuple[int, ...]  # id columns of each history; histories are the last fields of the schema

    def ids(self, windows: np.ndarray) -> list[np.ndarray]:
        """Windows (n, 2 histories) to each history's ids (n, width)."""
        steps = [np.arange(width, dtype=windows.dtype) for width in self.widths]
        return [self.events[positions] for positions in event_positions(windows, steps)]


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
    """The file of a vector field's vectors, by its position among the vector fields."""
    return f"vectors.{number}.npy"


def event_positions(windows: Array, steps: Sequence[Array]) -> list[Array]:
    """Positions (n, width) of what windows (n, 2 histories) hold: the histories' starts, then their ends. 0 is padding.

    `steps` counts the columns of each history: 0, 1, ... in the type of the windows.
    """
    by_history, starts, ends = [], windows[:, : len(steps)], windows[:, len(steps) :]
    for k, step in enumerate(steps):
        positions = starts[:, k : k + 1] + step  # n,width
        inside: Any = positions < ends[:, k : k + 1]
        by_history.append(positions * inside)
    return by_history
