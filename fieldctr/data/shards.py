"""Pass one's output: the table cut into shards, runs of consecutive rows with codes of their own.

A shard is a folder, named by the number of its first row, that has this name only when it is whole: what was killed
goes on behind the shards that are there. Nothing in one depends on another: they can be made anywhere, in any order.
A shard ends where a CHUNK of rows ends. Its size changes no byte of the prepared table.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
import polars as pl

from fieldctr.checksums import seal
from fieldctr.data import npy
from fieldctr.data.budget import Limits
from fieldctr.data.columns import column
from fieldctr.data.npy import read_blocks
from fieldctr.data.ragged import Codes, Ragged, joined, taken
from fieldctr.data.reader import CHUNK, Chunk, Reader, require
from fieldctr.data.spelling import LARGEST, NOT_FINITE, NULL_WORD, number
from fieldctr.data.table import DROP, EVENTS, LABEL, PCTR, SPLIT, SPLITS, parse_at_a_time
from fieldctr.data.tally import Tally
from fieldctr.disk import blamed, in_json, write_json
from fieldctr.errors import LabelError, UserError

T = TypeVar("T")
SCALARS = {"label": np.float32, "pctr": np.float32, "weight": np.float32}  # one number per row
NO_SPLIT = -1
SHOWN = 10  # values in a message
FORMAT = 3  # of a shard's files; raise it when they change, lest what was written before be read
NARROW = 1 << 16  # codes below it take 2 bytes
WIDE_CODES, NARROW_CODES, LISTS = range(3)  # how the codes of a field are stored
SHARD_FILE, WORDS_FILE = "shard.json", "words.arrow"


class Block(NamedTuple):
    """The rows of one chunk that belong to one split."""

    shard: int
    codes: list[Codes]  # per spec of the reader, NO_CODES for a numeric field
    numbers: np.ndarray  # (Q + T, n)


@dataclass(frozen=True)
class Shards:
    """All shards of a table, in the order of its rows."""

    reader: Reader
    folders: list[Path]

    @classmethod
    def of(cls, reader: Reader, folder: Path) -> "Shards":
        return cls(reader, finished(folder))

    def tally(self) -> Tally:
        """What pass one counted."""
        tally = Tally()
        for record in map(_record, self.folders):
            tally.rows += record["splits"]
            tally.clicks += record["clicks"]
            tally.dropped.update(record["dropped"])
            tally.events += record["events"]
        return tally

    def blanks(self) -> np.ndarray:
        """(Q, 3) per numeric field and split the rows without a number."""
        return np.sum([record["blanks"] for record in map(_record, self.folders)], axis=0).reshape(-1, len(SPLITS))

    def unread(self) -> np.ndarray:
        """(specs, 2, 3) cells that are not blank and yet say nothing: NULL_WORDS, and infinite numbers, per split."""
        return np.sum([record["unread"] for record in map(_record, self.folders)], axis=0).reshape(-1, 2, len(SPLITS))

    def cut(self) -> np.ndarray:
        """(M, 3, 2) per multi-valued field and split the values that were one too many, and the rows that had them."""
        cut = np.sum([record["cut"] for record in map(_record, self.folders)], axis=0)
        return cut.reshape(-1, len(SPLITS), 2)

    def words(self, i: int) -> Iterator[tuple[pl.Series, np.ndarray]]:
        """Per shard what the codes of the i-th of the specs with texts say, and their counts (3, codes)."""
        for folder in self.folders:
            frame = pl.read_ipc(folder / WORDS_FILE, columns=[f"texts {i}", f"counts {i}"])
            texts, counts = (column.item() for column in frame.get_columns())
            yield texts, counts.to_numpy().reshape(len(SPLITS), -1).astype(np.int64)

    def blocks(self, split: str) -> Iterator[Block]:
        """The rows of a split, or the EVENTS, in order, those of CHUNK raw rows at a time."""
        codes = self._whole(split, "codes", _read_codes, _joined_codes)
        for (shard, columns), (_, numbers) in zip(
            codes, self._whole(split, "numbers", read_blocks, _joined), strict=True
        ):
            yield Block(shard, self.reader.aligned(columns), numbers)

    def column(self, split: str, name: str) -> Iterator[np.ndarray]:
        """The numbers (Q + T, n), or label or pctr (n,), of the same blocks."""
        for _, part in self._whole(split, name, read_blocks, _joined):
            yield part

    def _whole(
        self, split: str, name: str, read: Callable[[Path], Iterator[T]], join: Callable[[list[T]], T]
    ) -> Iterator[tuple[int, T]]:
        """Shard and part for every CHUNK of raw rows, of which less memory may have made several chunks."""
        for shard, folder in enumerate(self.folders):
            record = _record(folder)
            if split == EVENTS and not record["events"]:
                continue  # there is no such file
            parts, several = read(folder / f"{split}.{name}"), CHUNK // record["chunk"]
            while some := list(islice(parts, several)):
                yield shard, some[0] if len(some) == 1 else join(some)

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


def refuse_gaps(folder: Path, tally: Tally, rows: int) -> None:
    """UserError unless the shards hold each of the `rows` once, in a split, an event, or left out for a reason."""
    missing = [(first, rows - first if many is None else many) for first, many in gaps(folder)]
    for first, many in missing:
        if many:
            raise UserError(
                f"{many:,} rows from row {first:,} on are missing among the shards in {folder}: something removed "
                "them while they were used. Nothing was written. Call again: the table is read anew"
            )
    counted = int(tally.rows.sum()) + tally.dropped.total() + tally.events
    if counted != rows_done(folder):
        raise UserError(f"{rows_done(folder):,} rows were read, and {counted:,} counted. Nothing was written")


def row_columns(schema: pl.Schema, group: str | None, weight: str | None) -> dict[str, pl.Expr]:
    """What pass one reads besides the fields and the groups, of which it wants the column too."""
    if missing := {LABEL, SPLIT} - set(schema):
        raise UserError(f"the source gives no {' and no '.join(sorted(missing))}: see fieldctr.data.table.Table.named")
    require(schema, [*([group] if group else []), *([weight] if weight else [])])
    # Not replace_strict: polars 2.1 collects the whole table for it.
    place = pl.col(SPLIT).cast(pl.String).cast(pl.Enum((*SPLITS, EVENTS)), strict=False)
    split = place.to_physical().cast(pl.Int8).fill_null(NO_SPLIT)
    extra = {"label": number(pl.col(LABEL), schema[LABEL]).fill_null(float("nan")), "split": split}
    if weight:
        extra["weight"] = number(column(weight), schema[weight]).fill_null(float("nan"))
    return extra | {name: pl.col(own) for name, own in (("drop", DROP), ("pctr", PCTR)) if own in schema}


def write_shards(
    reader: Reader, frame: pl.LazyFrame, extra: Mapping[str, pl.Expr], folder: Path, *, first: int, limits: Limits
) -> int:
    """Cut the frame's rows into shards in `folder`, and return their number; `first` is that of the first row."""
    folder.mkdir(parents=True, exist_ok=True)
    start, writer = first, None
    parse_at_a_time(limits.csv)
    for chunk in reader.chunks(frame, extra, limits.chunk):
        writer = writer or _Writer(reader, folder, start, limits.chunk)
        writer.add(chunk, frame)
        full = writer.rows >= limits.rows or sum(lexicon.bytes() for lexicon in writer.lexicons) >= limits.words
        if full and writer.rows % CHUNK == 0:
            start, writer = start + writer.rows, writer.finish()
    if writer:
        start, _ = start + writer.rows, writer.finish()
    return start - first


class _Writer:
    """A shard that is not whole yet."""

    def __init__(self, reader: Reader, folder: Path, first: int, chunk: int) -> None:
        self.chunk, self.reader, self.lexicons = chunk, reader, reader.lexicons()
        self.rows, self.tally = 0, Tally()
        self.blanks = np.zeros((reader.num_numeric, len(SPLITS)), np.int64)
        self.unread = np.zeros((reader.num_numeric, 2, len(SPLITS)), np.int64)
        self.cut = np.zeros((len(reader.lists), len(SPLITS), 2), np.int64)
        self.null_words = np.zeros((len(reader.lists), len(SPLITS)), np.int64)
        self.whole, self.folder = folder / f"{first:012}", folder / f".{first:012}"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.stack, self.files = ExitStack(), dict[Path, BinaryIO]()

    def add(self, chunk: Chunk, frame: pl.LazyFrame) -> None:
        """Append rows to the files of their splits."""
        columns, lists = self.reader.codes(self.lexicons, chunk.texts)
        self.rows += len(chunk.extra)
        *splits, events = _rows_of_splits(chunk.extra, frame, self.tally)
        for s, rows in enumerate(splits):
            codes, numbers = self._save(SPLITS[s], rows, columns, chunk)
            self.reader.count(self.lexicons, s, codes)
            own = numbers[: len(self.blanks)]
            self.blanks[:, s] += (~np.isfinite(own)).sum(1)
            self.unread[:, :, s] += np.stack([(own == reason).sum(1) for reason in (NULL_WORD, NOT_FINITE)], axis=1)
            if len(self.cut):
                self.cut[:, s, 0] += lists.cut[:, rows].sum(1)
                self.cut[:, s, 1] += np.count_nonzero(lists.cut[:, rows], axis=1)
                self.null_words[:, s] += lists.null_words[:, rows].sum(1)
            self.tally.add(s, chunk.extra["label"].to_numpy()[rows])
        if len(events):
            codes, _ = self._save(EVENTS, events, columns, chunk)
            self.reader.see(self.lexicons, codes)
            self.tally.events += len(events)

    def finish(self) -> None:
        """Say what the codes are, and give the folder its name. polars raises for a text that should be a number."""
        self.stack.close()
        words, unread = {}, []
        for i, lexicon in enumerate(self.lexicons):
            (texts, lost), counts = lexicon.told(), lexicon.counts[:, : lexicon.size].astype(np.uint32)
            words |= {f"texts {i}": [texts], f"counts {i}": [pl.Series(counts.reshape(-1))]}
            unread.append(lost)
        for spec, words_of in zip(self.reader.lists, self.null_words, strict=True):
            unread[self.reader.places[spec]][0] += words_of
        by_kind = {True: iter(self.unread), False: iter(unread)}
        with blamed(self.folder / WORDS_FILE):
            pl.DataFrame(words or {"none": [0]}).write_ipc(self.folder / WORDS_FILE)
        record = {
            "rows": self.rows,
            "chunk": self.chunk,
            "splits": self.tally.rows.tolist(),
            "clicks": self.tally.clicks.tolist(),
            "dropped": self.tally.dropped,
            "events": self.tally.events,
            "blanks": self.blanks.tolist(),
            "unread": [next(by_kind[spec.numeric]).tolist() for spec in self.reader.specs],
            "cut": self.cut.tolist(),
        }
        seal(self.folder, coming={SHARD_FILE: in_json(record)}, flushed=False)
        write_json(self.folder / SHARD_FILE, record)
        self.folder.rename(self.whole)

    def _save(self, split: str, rows: np.ndarray, columns: list[Codes], chunk: Chunk) -> tuple[list[Codes], np.ndarray]:
        """Append the chunk's `rows` to the files of a split; gives their codes and numbers."""
        codes, numbers = [taken(column, rows) for column in columns], np.take(chunk.numbers, rows, axis=1)
        self._save_codes(split, codes)
        npy.save(self._file(split, "numbers"), finite(numbers))
        for name, kind in SCALARS.items():
            if name in chunk.extra:
                npy.save(self._file(split, name), chunk.extra[name].to_numpy()[rows].astype(kind))
        return codes, numbers

    def _save_codes(self, split: str, codes: list[Codes]) -> None:
        """The fields with a code per row as two blocks, by the bytes that they need; behind these the lists."""
        kinds, file = np.array(list(map(_stored, codes)), np.int8), self._file(split, "codes")
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

    def _file(self, split: str, name: str) -> BinaryIO:
        path = self.folder / f"{split}.{name}"
        if path not in self.files:
            self.files[path] = self.stack.enter_context(path.open("wb"))
        return self.files[path]


def finite(numbers: np.ndarray) -> np.ndarray:
    """NaN in the place of what `told_number` gives for a missing number."""
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _stored(codes: Codes) -> int:
    if isinstance(codes, Ragged):
        return LISTS
    return NARROW_CODES if codes.max(initial=0) < NARROW else WIDE_CODES


def _kind(narrow: bool) -> type:
    return np.uint16 if narrow else np.uint32


def _read_codes(path: Path) -> Iterator[list[Codes]]:
    parts = read_blocks(path)
    for kinds in parts:
        lines = {kind: iter(next(parts)) for kind in (NARROW_CODES, WIDE_CODES)}
        columns: list[Codes | None] = [None if kind == LISTS else next(lines[kind]) for kind in kinds.tolist()]
        yield [Ragged(next(parts), next(parts).astype(np.int64)) if column is None else column for column in columns]


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts, axis=-1)


def _joined_codes(parts: list[list[Codes]]) -> list[Codes]:
    return [joined(column) for column in zip(*parts, strict=True)]


def _record(shard: Path) -> dict:
    return json.loads((shard / SHARD_FILE).read_text(encoding="utf-8"))


def _rows_of_splits(extra: pl.DataFrame, frame: pl.LazyFrame, tally: Tally) -> list[np.ndarray]:
    """Per split, and last for EVENTS, which rows of the chunk it keeps; the reasons for the others are counted."""
    kept = np.ones(len(extra), bool)
    if "drop" in extra.columns:
        kept = extra["drop"].is_null().to_numpy()
        tally.dropped.update(extra["drop"].drop_nulls().to_list())
    split, label = extra["split"].to_numpy(), extra["label"].to_numpy()
    if (split[kept] == NO_SPLIT).any():
        found = frame.select(pl.col(SPLIT).unique().sort()).collect().to_series().to_list()
        named = ", ".join("a blank" if name is None else repr(name) for name in found[:SHOWN])
        raise UserError(f"the split rule gives {named}: expected only {', '.join(SPLITS)}. Name others in split.values")
    strange = np.unique(label[kept & (split < len(SPLITS)) & (label != 0) & (label != 1)])
    if len(strange):
        found = ", ".join("a blank" if np.isnan(y) else f"{y:g}" for y in strange[:5])
        raise LabelError(f"label is not binary: found {found}, expected 0 and 1. Give the source a label rule.")
    if "weight" in extra.columns:
        weight = extra["weight"].to_numpy()[kept & (split < len(SPLITS))]
        if len(bad := weight[~((weight >= 0) & (weight <= LARGEST))]):
            found = "a blank" if np.isnan(bad[0]) else f"{bad[0]:g}"
            raise UserError(f"the weight of a row is {found}, expected a number from 0 to {LARGEST:.3g} in every row")
    return [np.flatnonzero(kept & (split == s)) for s in range(len(SPLITS) + 1)]
