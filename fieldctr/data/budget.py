"""How much memory preparing a table may take: what that makes of chunks and shards, and what is refused."""

from typing import NamedTuple, Self

import polars as pl

from fieldctr.data.table import CHUNK, MOST_CSV_BYTES
from fieldctr.errors import UserError
from fieldctr.memory import available_mb, resident_mb

# Bytes, as measured with polars 2.1:
BYTES_PER_CELL = 64  # of a text while its chunk is read
BYTES_PER_PARSED_BYTE = 32  # a thread of polars reads ahead
BASE_BYTES = 48 << 20  # that polars takes for any table
LEAST_CHUNK_ROWS = 1 << 10
MOST_ROWS = 1 << 22  # of a shard: what a kill may cost
LEAST_CSV_BYTES = 1 << 16  # that polars parses at a time


class Limits(NamedTuple):
    """What is in memory at a time in pass one. Only `block_rows` changes the table: last digits of fitted scales."""

    chunk_rows: int = CHUNK  # that are read at a time: a block, or less by a power of 2
    shard_rows: int = MOST_ROWS
    text_bytes: float = 1e9  # of a shard's distinct texts; its last block is read to the end
    csv_bytes: int = MOST_CSV_BYTES  # that polars parses at a time
    block_rows: int = CHUNK


class Budget(NamedTuple):
    """The memory of one process."""

    gb: float  # at most
    base: float  # bytes that it had before

    @classmethod
    def of(cls, gb: float | None) -> Self:
        """`gb`, or half of what the machine has left and all that the process holds already."""
        base = resident_mb() * 2**20
        return cls(gb or (base + available_mb() * 2**20 / 2) / 2**30, base)

    @property
    def free(self) -> float:
        """Bytes for the work."""
        return self.gb * 2**30 - self.base - BASE_BYTES

    def limits(self, columns: int) -> Limits:
        """A quarter each for what polars parses, for chunks of so many columns of texts, and for the texts of a shard.

        UserError where the quarter does not hold the smallest chunk.
        """
        quarter = self.free / 4
        parsed = LEAST_CSV_BYTES * BYTES_PER_PARSED_BYTE * pl.thread_pool_size()
        least = max(LEAST_CHUNK_ROWS * columns * BYTES_PER_CELL, parsed)
        if quarter < least:
            raise UserError(
                f"max_memory_gb={self.gb:.3g} is too little: the program itself takes "
                f"{(self.base + BASE_BYTES) / 2**30:.2f} GB, and {columns:,} columns more. Set "
                f"{(self.base + BASE_BYTES + 4 * least) / 2**30 + 0.005:.2f} or more."
            )
        chunk = CHUNK
        while chunk * columns * BYTES_PER_CELL > quarter:
            chunk //= 2
        csv_bytes = min(MOST_CSV_BYTES, int(quarter / BYTES_PER_PARSED_BYTE / pl.thread_pool_size()))
        return Limits(chunk, MOST_ROWS, quarter, csv_bytes, CHUNK)

    def less(self, held: float) -> Self:
        """What is left when so many bytes are held besides."""
        return self._replace(base=self.base + held)

    def refuse(self, what: str, cure: str, need: float) -> None:
        """UserError if the work needs more bytes than there are."""
        if need > self.free:
            least = (self.base + 1.2 * need) / 2**30
            raise UserError(
                f"{what} take {need / 2**30:.2f} GB, and max_memory_gb={self.gb:.3g} leaves "
                f"{max(self.free, 0) / 2**30:.2f}. {cure}, or set max_memory_gb={least:.2g} or more."
            )
