"""Pass one: the raw table becomes shards, runs of rows with codes, that lie on disk."""

from fieldctr.data.shards.shards import FORMAT, SCALARS, Block, Shards, finished, gaps, refuse_gaps, rows_done
from fieldctr.data.shards.writer import _Writer, write_shards

__all__ = [
    "FORMAT",
    "SCALARS",
    "Block",
    "Shards",
    "_Writer",
    "finished",
    "gaps",
    "refuse_gaps",
    "rows_done",
    "write_shards",
]
