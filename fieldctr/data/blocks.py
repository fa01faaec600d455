"""What pass one of `fieldctr.data.encode` leaves of a split, some rows at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fieldctr.data.npy import read_blocks
from fieldctr.data.reader import Reader


class Block(NamedTuple):
    """Consecutive rows of a split."""

    start: int  # the first row's position in the split
    codes: np.ndarray  # (S, n)
    numbers: np.ndarray  # (Q, n)
    times: np.ndarray  # (times, n) microseconds
    label: np.ndarray  # (n,)


def blocks(folder: Path, split: str, reader: Reader) -> Iterator[Block]:
    """The split's rows in order. Times are the last lines of the numbers, behind statistics once these are there."""
    start, cut = 0, sum(spec.numeric for spec in reader.specs)
    for codes, numbers in zip(*(read_blocks(folder / f"{split}.{name}") for name in ("codes", "numbers")), strict=True):
        end = start + codes.shape[1]
        label = np.load(folder / f"{split}.label.npy", mmap_mode="r")[start:end]  # mapped anew: no page is kept
        yield Block(start, codes, numbers[:cut], numbers[len(numbers) - len(reader.times) :], label)
        start = end
