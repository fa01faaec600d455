"""Pass one's output: the table cut into shards, runs of consecutive rows with codes of their own.

A shard is a folder, named by the number of its first row, that has this name only when it is whole: what was killed
goes on behind the shards that are there. Nothing in one depends on another: they can be made anywhere, in any order.
A shard ends where a block of rows ends. Its size changes no byte of the prepared table.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice, repeat
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl

from fieldctr.data import npy
from fieldctr.data.fields.kinds import Time
from fieldctr.data.npy import read_blocks
from fieldctr.data.shards.code_files import read_codes
from fieldctr.data.shards.ragged import Codes, joined, part
from fieldctr.data.shards.reader import Reader
from fieldctr.data.shards.row_counts import RowCounts
from fieldctr.data.table import CHUNK, EVENTS, SPLITS
from fieldctr.errors import UserError

T = TypeVar("T")
SCALARS = {"label": np.float32, "pctr": np.float32, "weight": np.float32}  # one number per row
FORMAT = 4  # of a shard's files; raise it when they change, lest what was written before be read
SHARD_FILE, TEXTS_FILE = "shard.json", "words.arrow"


@dataclass(frozen=True)
class Block:
    """Consecutive rows of one split, those of `Limits.block_rows` raw rows."""

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
    block_rows: int = CHUNK
    added: list[str] = field(default_factory=list)  # the names of these numbers

    @classmethod
    def of(cls, reader: Reader, folder: Path, work: Path, block_rows: int = CHUNK) -> "Shards":
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


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts, axis=-1)


def _joined_codes(parts: list[list[Codes]]) -> list[Codes]:
    return [joined(column) for column in zip(*parts, strict=True)]


def _record(shard: Path) -> dict[str, Any]:
    return json.loads((shard / SHARD_FILE).read_text(encoding="utf-8"))


def finite(numbers: np.ndarray) -> np.ndarray:
    """NaN in the place of what `told_number` gives for a missing number."""
    return np.where(np.isfinite(numbers), numbers, np.nan)
