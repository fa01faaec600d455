"""What pass one of `fieldctr.data.encode` leaves of a split, some rows at a time."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from fieldctr.data.ragged import Codes
from fieldctr.data.shards import Shards


class Block(NamedTuple):
    """Consecutive rows of a split."""

    start: int  # the first row's position in the split
    shard: int  # whose codes these are
    codes: list[Codes]  # per spec of the reader
    times: np.ndarray  # (times, n) microseconds
    label: np.ndarray  # (n,)


def blocks(shards: Shards, split: str) -> Iterator[Block]:
    """The split's rows in order."""
    start, cut = 0, shards.reader.num_numeric
    for block, label in zip(shards.blocks(split), shards.column(split, "label"), strict=True):
        yield Block(start, block.shard, block.codes, block.numbers[cut:], label)
        start += len(label)
