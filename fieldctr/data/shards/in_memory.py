"""New rows, read as one shard that stays in memory."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from fieldctr.data.shards.ragged import joined
from fieldctr.data.shards.reader import Reader
from fieldctr.data.shards.shards import Block, finite


@dataclass(frozen=True)
class NewBlock:
    """All new rows, and what their codes say."""

    reader: Reader
    block: Block
    texts: Mapping[str, pl.Series]  # (codes,) by entry of `Reader.texts`; null for code 0
    counts: Mapping[str, np.ndarray]  # (codes,) how often each stands

    @classmethod
    def read(cls, reader: Reader, frame: pl.LazyFrame, label: pl.Expr) -> "NewBlock | None":
        """The frame's rows; None where it has none."""
        dictionaries, chunks = reader.dictionaries(), []
        for chunk in reader.chunks(frame, {"label": label}):
            columns, _ = reader.codes(dictionaries, chunk.texts)
            reader.count(dictionaries, 0, columns)
            chunks.append((columns, finite(chunk.numbers), chunk.extra["label"]))
        texts = {name: dictionary.texts() for name, dictionary in dictionaries.items()}
        if not chunks:
            return None
        columns, numbers, labels = zip(*chunks, strict=True)
        codes = {name: joined([part[name] for part in columns]) for name in reader.texts}
        lines, times = reader.lines(np.concatenate(numbers, axis=1))
        known = pl.concat(labels).cast(pl.Float32).to_numpy(writable=True)
        counts = {name: dictionary.counts[0, : dictionary.size] for name, dictionary in dictionaries.items()}
        return cls(reader, Block("", 0, 0, codes, lines, times, known), texts, counts)
