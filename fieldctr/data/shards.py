"""Pass one's output: the table cut into shards, runs of consecutive rows with codes of their own.

A shard is a folder, named by the number of its first row, that has this name only when it is whole: what was killed
goes on behind the shards that are there. Nothing in one depends on another: they can be made anywhere, in any order.
A shard ends where a block of rows ends. Its size changes no byte of the prepared table.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice, repeat
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import polars as pl

from fieldctr.checksums import complete
from fieldctr.data import npy
from fieldctr.data.budget import Limits
from fieldctr.data.code_files import read_codes, save_codes
from fieldctr.data.kinds import Time
from fieldctr.data.npy import read_blocks
from fieldctr.data.ragged import Codes, joined, part, taken
from fieldctr.data.reader import BLOCK_ROWS, Chunk, Reader
from fieldctr.data.row_counts import RowCounts
from fieldctr.data.samples import rows_of_splits
from fieldctr.data.spelling import NOT_FINITE, NULL_WORD
from fieldctr.data.table import EVENTS, SPLITS, parse_at_a_time
from fieldctr.disk import blamed
from fieldctr.errors import UserError

T = TypeVar("T")
SCALARS = {"label": np.float32, "pctr": np.float32, "weight": np.float32}  # one number per row
FORMAT = 4  # of a shard's files; raise it when they change, lest what was written before be read
SHARD_FILE, TEXTS_FILE = "shard.json", "words.arrow"


@dataclass(frozen=True)
class Block:
    """Consecutive rows of one split, those of BLOCK_ROWS raw rows."""

    split: str  # one of SPLITS, or EVENTS; "" for new rows
    start: int  # the first row's position in the split
    shard: int  # whose codes these are
    codes: Mapping[str, Codes]  # by entry of `Reader.texts`
    numbers: Mapping[str, np.ndarray]  # (n,) by numeric field, and by what was added to the shards; NaN where missing
    times: Mapping[Time, np.ndarray]  # (n,) microseconds
    label: np.ndarray  # (n,)

    def __len__(self) -> int:
        return len(self.label)

    def part(self, start: int, stop: int) -> "Block":
        """The rows from `start` to `stop`; nothing is copied."""
        codes = {name: part(column, start, stop) for name, column in self.codes.items()}
        numbers = {name: line[start:stop] for name, line in self.numbers.items()}
        times = {time: line[start:stop] for time, line in self.times.items()}
        return replace(
            self, start=self.start + start, codes=codes, numbers=numbers, times=times, label=self.label[start:stop]
        )


@dataclass(frozen=True)
class Shards:
    """All shards of a table, in the order of its rows.

    `work` is for numbers that are made of the shards between the passes, such as statistics: see `add_numbers`.
    """

    reader: Reader
    folders: list[Path]
    work: Path
    block_rows: int = BLOCK_ROWS
    added: list[str] = field(default_factory=list)  # the names of these numbers

    @classmethod
    def of(cls, reader: Reader, folder: Path, work: Path, block_rows: int = BLOCK_ROWS) -> "Shards":
        """The shards in `folder`."""
        return cls(reader, finished(folder), work, block_rows)

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """What pass one wrote of each shard, read once: with thousands of fields a record is large."""
        return [_record(folder) for folder in self.folders]

    @cached_property
    def row_counts(self) -> RowCounts:
        """What pass one counted."""
        row_counts = RowCounts()
        for record in self.records:
            row_counts.rows += record["splits"]
            row_counts.clicks += record["clicks"]
            row_counts.dropped.update(record["dropped"])
            row_counts.events += record["events"]
        return row_counts

    def blanks(self) -> dict[str, np.ndarray]:
        """(3,) per numeric field and split the rows without a number."""
        return self._summed("blanks")

    def unread(self) -> dict[str, np.ndarray]:
        """(2, 3) per field and split cells that are not blank and yet say nothing: NULL_WORDS, and infinite numbers."""
        return self._summed("unread")

    def cut(self) -> dict[str, np.ndarray]:
        """(3, 2) per multi-valued field and split the values that were one too many, and the rows that had them."""
        return self._summed("cut")

    def _summed(self, count: str) -> dict[str, np.ndarray]:
        records = [record[count] for record in self.records]
        return {name: np.sum([record[name] for record in records], axis=0) for name in records[0]}

    def texts(self, name: str) -> Iterator[tuple[pl.Series, np.ndarray]]:
        """Per shard the texts of the codes of an entry of `Reader.texts`, and their counts (3, codes)."""
        i = self.positions[name]
        for folder in self.folders:
            frame = pl.read_ipc(folder / TEXTS_FILE, columns=[f"texts {i}", f"counts {i}"])
            texts, counts = (column.item() for column in frame.get_columns())
            yield texts, counts.to_numpy().reshape(len(SPLITS), -1).astype(np.int64)

    @cached_property
    def positions(self) -> dict[str, int]:
        """Where each entry of `Reader.texts` stands in the files; `index` would compare thousands of fields."""
        return {name: i for i, name in enumerate(self.reader.texts)}

    def blocks(self, split: str) -> Iterator[Block]:
        """The rows of a split, or the EVENTS, in order."""
        start, codes_of_blocks = 0, self._blocks(split, "codes", read_codes, _joined_codes)
        columns = zip(codes_of_blocks, self.lines(split), self.column(split, "label"), strict=True)
        for (shard, codes), (numbers, times), label in columns:
            named = dict(zip(self.reader.texts, codes, strict=True))
            yield Block(split, start, shard, named, numbers, times, label)
            start += len(label)

    def lines(self, split: str) -> Iterator[tuple[dict[str, np.ndarray], dict[Time, np.ndarray]]]:
        """The numbers, and the times, of the same blocks, by their names."""
        added = read_blocks(self._added(split)) if self.added else repeat(np.empty(0))
        for block in self.column(split, "numbers"):
            numbers, times = self.reader.lines(block)
            yield numbers | dict(zip(self.added, next(added), strict=True)), times

    def numbers(self, split: str, name: str) -> Iterator[np.ndarray]:
        """The numbers (n,) of one name, block by block."""
        return (numbers[name] for numbers, _ in self.lines(split))

    def column(self, split: str, name: str) -> Iterator[np.ndarray]:
        """The raw numbers and times (numbers + times, n), or label or pctr (n,), of the same blocks."""
        return (block for _, block in self._blocks(split, name, read_blocks, _joined))

    def add_numbers(self, names: Sequence[str], lines: Mapping[str, Iterable[np.ndarray]]) -> None:
        """Keep more numbers under these names, once. `lines` has per split those of each block, (len(names), n)."""
        for split, blocks in lines.items():
            with self._added(split).open("wb") as file:
                for block in blocks:
                    npy.save(file, block)
        self.added.extend(names)

    def drop_numbers(self, split: str) -> None:
        """Remove the numbers that were added of a split, which is done."""
        self._added(split).unlink(missing_ok=True)

    def _added(self, split: str) -> Path:
        return self.work / f"{split}.added"

    def _blocks(
        self, split: str, name: str, read: Callable[[Path], Iterator[T]], join: Callable[[list[T]], T]
    ) -> Iterator[tuple[int, T]]:
        """Shard and content of every block, of which less memory may have made several chunks."""
        for shard, (folder, record) in enumerate(zip(self.folders, self.records, strict=True)):
            if split == EVENTS and not record["events"]:
                continue  # there is no such file
            chunks, chunks_per_block = read(folder / f"{split}.{name}"), self.block_rows // record["chunk"]
            while of_block := list(islice(chunks, chunks_per_block)):
                yield shard, of_block[0] if len(of_block) == 1 else join(of_block)

    def weights(self) -> np.ndarray:
        """(3, 2) per split the weights of its non-clicks and of its clicks; in blocks that no shard's size changes."""
        sums = np.zeros((len(SPLITS), 2))
        for s, split in enumerate(SPLITS):
            for label, weight in zip(self.column(split, "label"), self.column(split, "weight"), strict=True):
                sums[s] += np.bincount(label > 0.5, weight, minlength=2)
        return sums

    def has(self, name: str) -> bool:
        """Whether the table has such a column."""
        return (self.folders[0] / f"train.{name}").exists()


def finished(folder: Path) -> list[Path]:
    """The whole shards in `folder`, in order."""
    return sorted(path.parent for path in folder.glob(f"[0-9]*/{SHARD_FILE}"))


def rows_done(folder: Path) -> int:
    """How many rows the whole shards in `folder` hold."""
    return sum(_record(shard)["rows"] for shard in finished(folder))


def gaps(folder: Path) -> Iterator[tuple[int, int | None]]:
    """First row and number of the rows that no shard in `folder` holds; None: all that follow."""
    row = 0
    for shard in finished(folder):
        if row < int(shard.name):
            yield row, int(shard.name) - row
        row = int(shard.name) + _record(shard)["rows"]
    yield row, None


def refuse_gaps(folder: Path, row_counts: RowCounts, rows: int) -> None:
    """UserError unless the shards hold each of the `rows` once, in a split, an event, or left out for a reason."""
    missing = [(first, rows - first if many is None else many) for first, many in gaps(folder)]
    for first, many in missing:
        if many:
            raise UserError(
                f"{many:,} rows from row {first:,} on are missing among the shards in {folder}: something removed "
                "them while they were used. Nothing was written. Call again: the table is read anew"
            )
    counted, read = int(row_counts.rows.sum()) + row_counts.dropped.total() + row_counts.events, rows_done(folder)
    if counted != read:
        raise UserError(f"{read:,} rows were read, and {counted:,} counted. Nothing was written")


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


def finite(numbers: np.ndarray) -> np.ndarray:
    """NaN in the place of what `told_number` gives for a missing number."""
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts, axis=-1)


def _joined_codes(parts: list[list[Codes]]) -> list[Codes]:
    return [joined(column) for column in zip(*parts, strict=True)]


def _record(shard: Path) -> dict[str, Any]:
    return json.loads((shard / SHARD_FILE).read_text(encoding="utf-8"))
