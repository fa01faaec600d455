"""The codes of blocks of rows in one file, a block behind the other: a code of two or four bytes per row, and lists."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fieldctr.data import npy
from fieldctr.data.npy import read_blocks
from fieldctr.data.shards.ragged import Codes, Ragged

NARROW = 1 << 16  # codes below it take 2 bytes
WIDE_CODES, NARROW_CODES, LISTS = range(3)  # how the codes of a field are stored


def save_codes(file: BinaryIO, codes: Sequence[Codes]) -> None:
    """Append a block: the fields with a code per row as two matrices, by the bytes that these need; then the lists."""
    kinds = np.array(list(map(_stored, codes)), np.int8)
    npy.save(file, kinds)
    for kind in (NARROW_CODES, WIDE_CODES):
        some = [codes[i] for i in np.flatnonzero(kinds == kind)]
        block = np.empty((len(some), len(some[0]) if some else 0), _kind(kind == NARROW_CODES))
        for line, own in zip(block, some, strict=True):
            line[:] = own
        npy.save(file, block)
    for own in codes:
        for part in own if isinstance(own, Ragged) else ():
            npy.save(file, part.astype(_kind(part.max(initial=0) < NARROW)))


def read_codes(path: Path) -> Iterator[list[Codes]]:
    """The blocks of a file in order."""
    parts = read_blocks(path)
    for kinds in parts:
        lines = {kind: iter(next(parts)) for kind in (NARROW_CODES, WIDE_CODES)}
        columns: list[Codes | None] = [None if kind == LISTS else next(lines[kind]) for kind in kinds.tolist()]
        yield [Ragged(next(parts), next(parts).astype(np.int64)) if column is None else column for column in columns]


def _stored(codes: Codes) -> int:
    if isinstance(codes, Ragged):
        return LISTS
    return NARROW_CODES if codes.max(initial=0) < NARROW else WIDE_CODES


def _kind(narrow: bool) -> type:
    return np.uint16 if narrow else np.uint32
