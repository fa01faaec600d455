"""The writing of shards: rows become codes and numbers, appended to the files of their splits."""

import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np
import polars as pl

from fieldctr.checksums import complete
from fieldctr.data import npy
from fieldctr.data.budget import Limits
from fieldctr.data.fields.spelling import NOT_FINITE, NULL_WORD
from fieldctr.data.shards.code_files import save_codes
from fieldctr.data.shards.ragged import Codes, taken
from fieldctr.data.shards.reader import Chunk, Reader
from fieldctr.data.shards.row_counts import RowCounts
from fieldctr.data.shards.samples import rows_of_splits
from fieldctr.data.shards.shards import SCALARS, SHARD_FILE, TEXTS_FILE, finite
from fieldctr.data.table import EVENTS, SPLITS, parse_at_a_time
from fieldctr.disk import blamed


def write_shards(
    reader: Reader, frame: pl.LazyFrame, extra: Mapping[str, pl.Expr], folder: Path, *, first: int, limits: Limits
) -> int:
    """Cut the frame's rows into shards in `folder`, and return their number; `first` is that of the first row."""
    folder.mkdir(parents=True, exist_ok=True)
    start, writer = first, None
    parse_at_a_time(limits.csv_bytes)
    for chunk in reader.chunks(frame, extra, limits.chunk_rows):
        writer = writer or _Writer(reader, folder, start, limits.chunk_rows)
        writer.add(chunk, frame)
        full = writer.rows >= limits.shard_rows or writer.text_bytes() >= limits.text_bytes
        if full and writer.rows % limits.block_rows == 0:
            start, writer = start + writer.rows, writer.finish()
    if writer:
        start, _ = start + writer.rows, writer.finish()
    return start - first


class _Writer:
    """A shard that is not whole yet."""

    def __init__(self, reader: Reader, folder: Path, first: int, chunk: int) -> None:
        self.chunk, self.reader, self.dictionaries = chunk, reader, reader.dictionaries()
        self.rows, self.row_counts = 0, RowCounts()
        self.blanks = np.zeros((len(reader.numbers), len(SPLITS)), np.int64)
        self.unread = np.zeros((len(reader.numbers), 2, len(SPLITS)), np.int64)
        self.cut = {name: np.zeros((len(SPLITS), 2), np.int64) for name in reader.lists}
        self.null_words = {name: np.zeros(len(SPLITS), np.int64) for name in reader.lists}
        self.target, self.folder = folder / f"{first:012}", folder / f".{first:012}"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.stack, self.files = ExitStack(), dict[Path, BinaryIO]()

    def add(self, chunk: Chunk, frame: pl.LazyFrame) -> None:
        """Append rows to the files of their splits."""
        columns, left_out = self.reader.codes(self.dictionaries, chunk.texts)
        self.rows += len(chunk.extra)
        *splits, events = rows_of_splits(chunk.extra, frame, self.row_counts)
        for s, rows in enumerate(splits):
            codes, numbers = self._save(SPLITS[s], rows, columns, chunk)
            self.reader.count(self.dictionaries, s, codes)
            of_fields = numbers[: len(self.blanks)]  # times follow
            self.blanks[:, s] += (~np.isfinite(of_fields)).sum(1)
            reasons = [(of_fields == reason).sum(1) for reason in (NULL_WORD, NOT_FINITE)]
            self.unread[:, :, s] += np.stack(reasons, axis=1)
            for name, of_rows in left_out.items():
                cut = of_rows.cut[rows]
                self.cut[name][s] += (cut.sum(), np.count_nonzero(cut))
                self.null_words[name][s] += of_rows.null_words[rows].sum()
            self.row_counts.add(s, chunk.extra["label"].to_numpy()[rows])
        if len(events):
            codes, _ = self._save(EVENTS, events, columns, chunk)
            self.reader.see(self.dictionaries, codes)
            self.row_counts.events += len(events)

    def text_bytes(self) -> float:
        """Memory of the distinct texts so far."""
        return sum(dictionary.num_bytes() for dictionary in self.dictionaries.values())

    def finish(self) -> None:
        """Write what the codes mean, and name the folder. polars raises for a text that should be a number."""
        self.stack.close()
        columns, unread = {}, dict(zip(self.reader.numbers, self.unread, strict=True))
        for i, (name, dictionary) in enumerate(self.dictionaries.items()):
            texts, unread[name] = dictionary.texts_and_unread()
            counts = dictionary.counts[:, : dictionary.size].astype(np.uint32)
            columns |= {f"texts {i}": [texts], f"counts {i}": [pl.Series(counts.reshape(-1))]}
        for name, null_words in self.null_words.items():
            unread[name][0] += null_words
        with blamed(self.folder / TEXTS_FILE):
            pl.DataFrame(columns or {"none": [0]}).write_ipc(self.folder / TEXTS_FILE)
        record = {
            "rows": self.rows,
            "chunk": self.chunk,
            "splits": self.row_counts.rows.tolist(),
            "clicks": self.row_counts.clicks.tolist(),
            "dropped": self.row_counts.dropped,
            "events": self.row_counts.events,
            "blanks": dict(zip(self.reader.numbers, self.blanks.tolist(), strict=True)),
            "unread": {name: cells.tolist() for name, cells in unread.items()},
            "cut": {name: counts.tolist() for name, counts in self.cut.items()},
        }
        complete(self.folder, SHARD_FILE, record, flushed=False)
        self.folder.rename(self.target)

    def _save(
        self, split: str, rows: np.ndarray, columns: Mapping[str, Codes], chunk: Chunk
    ) -> tuple[dict[str, Codes], np.ndarray]:
        """Append the chunk's `rows` to the files of a split; gives their codes and numbers."""
        codes = {name: taken(column, rows) for name, column in columns.items()}
        numbers = np.take(chunk.numbers, rows, axis=1)
        save_codes(self._file(split, "codes"), list(codes.values()))
        npy.save(self._file(split, "numbers"), finite(numbers))
        for name, kind in SCALARS.items():
            if name in chunk.extra:
                npy.save(self._file(split, name), chunk.extra[name].to_numpy()[rows].astype(kind))
        return codes, numbers

    def _file(self, split: str, name: str) -> BinaryIO:
        path = self.folder / f"{split}.{name}"
        if path not in self.files:
            self.files[path] = self.stack.enter_context(path.open("wb"))
        return self.files[path]
