"""Histories of rows without a copy per row: windows into one log of events, sliced when ids are asked for."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from torch import Tensor

EVENTS_FILE = "events.npy"
Array = TypeVar("Array", np.ndarray, Tensor)


class Past(NamedTuple):
    """The events that the windows of rows point into."""

    events: np.ndarray  # (1 + E,) int32 local ids by history, user and time; the first one, 0, is padding
    widths: tuple[int, ...]  # id columns of each of the H histories, the last fields of the schema

    def ids(self, windows: np.ndarray) -> list[np.ndarray]:
        """Windows (n, 2H) to each history's ids (n, width)."""
        steps = [np.arange(width, dtype=windows.dtype) for width in self.widths]
        return [self.events[place] for place in places(windows, steps)]


def places(windows: Array, steps: Sequence[Array]) -> list[Array]:
    """Positions (n, width) of what windows (n, 2H) hold: the histories' starts, then their ends. 0 is padding.

    `steps` counts the columns of each history: 0, 1, ... in the type of the windows.
    """
    found, starts, ends = [], windows[:, : len(steps)], windows[:, len(steps) :]
    for k, step in enumerate(steps):
        place = starts[:, k : k + 1] + step  # n,width
        inside: Any = place < ends[:, k : k + 1]
        found.append(place * inside)
    return found
