"""Pass two: what encoders make of a split's rows, as one matrix per file."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from fieldctr.data.encoders.encoder import Columns, Encoder
from fieldctr.data.fields.kinds import Spec
from fieldctr.data.npy import NpyWriter
from fieldctr.data.shards import SCALARS, Block, Shards
from fieldctr.data.shards.ragged import values_of
from fieldctr.data.shards.reader import GROUP

PIECE_IDS = 1 << 23  # in memory at a time
TURNED_ROWS = 1024  # at a time


class Groups(NamedTuple):
    """The groups of the samples."""

    column: str
    texts: pl.Series  # ascending
    numbers: list[np.ndarray]  # per shard (codes,) the place of each code's group among these, from 1; 0: nobody's

    def of(self, block: Block) -> np.ndarray:
        """(n,) int32 the group of each of the block's rows."""
        return self.numbers[block.shard][values_of(block.codes[GROUP])]

    def facts(self) -> dict[str, object]:
        """How many there are."""
        return {"column": self.column, "groups": len(self.texts)}


def matrices(specs: Sequence[Spec], encoders: Iterable[Encoder], block: Block) -> dict[str, np.ndarray]:
    """The matrices of a block's rows, by name, that have a column: ids (n, S), values (n, N), windows (n, 2 histories).

    Each has the fields in their order; windows have all starts, then all ends.
    """
    by_field: dict[str, Columns] = {}
    for encoder in encoders:
        by_field |= encoder.apply(block)
    columns = [by_field[spec.name] for spec in specs]
    parts = {
        "ids": [own.ids for own in columns if own.ids is not None],
        "values": [own.values[None] for own in columns if own.values is not None],
        "windows": [own.windows[i][None] for i in range(2) for own in columns if own.windows is not None],
    }
    return {name: _transposed(np.concatenate(lines)) for name, lines in parts.items() if lines}


def write_split(
    shards: Shards, specs: Sequence[Spec], encoders: Sequence[Encoder], groups: Groups | None, place: Path
) -> None:
    """All rows of a split, its scalars as they are, in `place`.*.npy."""
    folder, split = place.parent, place.name
    files: dict[str, NpyWriter] = {}
    with ExitStack() as stack:

        def append(name: str, rows: np.ndarray) -> None:
            if name not in files:
                columns = rows.shape[1] if rows.ndim == 2 else None
                writer = NpyWriter(folder / f"{split}.{name}.npy", dtype=rows.dtype.type, columns=columns)
                files[name] = stack.enter_context(writer)
            files[name].append(rows)

        for block in _pieces(shards, split, sum(spec.width for spec in specs)):
            for name, rows in matrices(specs, encoders, block).items():
                append(name, rows)
            if groups:
                append("group", groups.of(block))
        for name in filter(shards.has, SCALARS):
            for rows in shards.column(split, name):
                append(name, rows)


def _pieces(shards: Shards, split: str, columns: int) -> Iterator[Block]:
    """The blocks of a split in pieces of at most PIECE_IDS ids."""
    rows = max(PIECE_IDS // columns, 1)
    for block in shards.blocks(split):
        for start in range(0, len(block), rows):
            yield block.part(start, start + rows) if rows < len(block) else block


def _transposed(columns: np.ndarray) -> np.ndarray:
    """(S, n) to (n, S), some rows at a time: what the cache holds is turned at twice the speed."""
    turned = np.empty(columns.shape[::-1], columns.dtype)
    for start in range(0, len(turned), TURNED_ROWS):
        turned[start : start + TURNED_ROWS] = columns[:, start : start + TURNED_ROWS].T
    return turned
