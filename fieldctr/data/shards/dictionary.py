"""Texts to codes while rows stream by, codes of many shards to those of one table, and texts to ids."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from fieldctr.data.fields.spelling import LARGEST, NULL_WORDS, canonical
from fieldctr.data.hashing import text_hashes
from fieldctr.data.table import SPLITS

BYTES_PER_TEXT, BYTES_PER_LETTER = 144, 1.25  # of a distinct text, without and for each byte of it
BYTES_PER_CODE, BYTES_PER_BUCKET = 8, 36  # of a shard's code, and of a bucket
VOCABULARY: pl.Schema = pl.Schema({"value": pl.String, "id": pl.Int32, "count": pl.Int64})  # a row per known value
MEASURED_TEXTS = 1 << 16  # that tell how long a text is
FIRST_SLOTS, SPARSE = 1 << 12, 4  # a power of 2; slots of a hash table, at least, for each text


class Dictionary:
    """Texts to codes in order of appearance: 0 for null or blank, then every distinct text. Counts them per split.

    A text is what its 64-bit hash says: two of 10^7 texts share one with a probability of 3e-6. The hashes stand in a
    table of open addressing, at half the cost of polars' Categorical for a new text, a tenth for one that is there.
    """

    def __init__(self, column: str = "value", meaning: Callable[[pl.Expr], pl.Expr] = canonical) -> None:
        self.hashes = next(hashes_of(pl.DataFrame({"blank": [""]})))  # (codes or more,) of each code's text
        self.slots = np.zeros(FIRST_SLOTS, np.uint32)  # codes at their hashes' low bits, or behind; 0 where it is free
        self.pieces = [pl.Series([""])]  # the text of each code
        self.counts = np.zeros((len(SPLITS), 1), np.int64)
        self.known = 1  # codes so far, 0 included
        self.size = 1  # likewise, those that were counted or seen
        self.measured_texts, self.measured_bytes = 1, 0  # how long a text is
        self.column, self.meaning = column, meaning  # where the texts are from, and what each says

    def code(self, texts: pl.Series, hashes: np.ndarray | None = None) -> np.ndarray:
        """The codes (n,) uint32 of texts; `hashes` are theirs, where they were asked for before."""
        hashes = next(hashes_of(texts.to_frame())) if hashes is None else hashes
        codes, unknown = self._find(hashes)
        if len(unknown):
            first = pl.Series(hashes[unknown]).arg_unique().to_numpy()
            self._add(texts.gather(unknown[first]), hashes[unknown[first]])
            codes[unknown], _ = self._find(hashes[unknown])
        return codes

    def _find(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The codes (n,) of hashes, and which of them have none yet."""
        codes = self.slots.take(self._home(hashes), mode="clip")  # a third less than slots[...], which checks them
        others = np.flatnonzero(self.hashes.take(codes, mode="clip") != hashes)
        unknown, step = [others[:0]], 0
        while len(others):
            free = codes[others] == 0
            unknown.append(others[free])
            others, step = others[~free], step + 1
            codes[others] = self.slots[self._home(hashes[others] + np.uint64(step))]
            others = others[self.hashes[codes[others]] != hashes[others]]
        return codes, np.sort(np.concatenate(unknown))

    def _home(self, hashes: np.ndarray) -> np.ndarray:
        return (hashes & np.uint64(len(self.slots) - 1)).view(np.int64)

    def _add(self, texts: pl.Series, hashes: np.ndarray) -> None:
        """New texts, each once."""
        self.pieces.append(texts)
        if self.measured_texts < MEASURED_TEXTS:
            self.measured_texts += len(texts)
            self.measured_bytes += int(texts.str.len_bytes().sum())
        first, self.known = self.known, self.known + len(texts)
        self.hashes = _with_room(self.hashes, self.known)
        self.hashes[first : self.known] = hashes
        if SPARSE * self.known > len(self.slots):
            self.slots, first = np.zeros(1 << (SPARSE * self.known).bit_length(), np.uint32), 1
        codes = np.arange(first, self.known, dtype=np.uint32)
        slots = self._home(self.hashes[codes])
        while len(codes):
            free = self.slots[slots] == 0
            self.slots[slots[free][::-1]] = codes[free][::-1]  # of several that want one the last here, so the first
            left = self.slots[slots] != codes
            codes, slots = codes[left], (slots[left] + 1) & (len(self.slots) - 1)

    def count(self, split: int, codes: np.ndarray) -> None:
        """Add codes (n,) of one split."""
        self._grow(int(codes.max(initial=0)) + 1)
        if len(codes) < self.size:
            np.add.at(self.counts[split], codes, 1)
        else:
            more = np.bincount(codes)
            self.counts[split, : len(more)] += more

    def count_missing(self, split: int, rows: int) -> None:
        """Add rows of one split that have no value."""
        self.counts[split, 0] += rows

    def see(self, codes: np.ndarray) -> None:
        """Keep the texts of codes (n,) of no split, which are counted nowhere."""
        self._grow(int(codes.max(initial=0)) + 1)

    def add(self, codes: np.ndarray, counts: np.ndarray) -> None:
        """Add `counts` (3, n) int64 of codes (n,), among which one may come more than once."""
        self._grow(int(codes.max(initial=0)) + 1)
        for total, more in zip(self.counts, counts, strict=True):
            np.add.at(total, codes, more)

    def num_bytes(self) -> float:
        """Memory that the texts take until they are written or ranked; measured with polars 2.1."""
        return self.size * (BYTES_PER_TEXT + BYTES_PER_LETTER * self.measured_bytes / self.measured_texts)

    def texts(self) -> pl.Series:
        """(size,) what every code says; null for code 0, and for a text that says nothing.

        polars raises for a text that should be a number and is none.
        """
        return self._values(self._raw_texts())

    def texts_and_unread(self) -> tuple[pl.Series, np.ndarray]:
        """`texts`, and (2, 3) per split the cells that say nothing though they are not blank.

        Those are words for no value, and infinite numbers.
        """
        read = self._raw_texts()
        texts = self._values(read)
        codes = texts.is_null().arg_true()
        codes = codes.filter(read.gather(codes) != "")
        read = read.gather(codes)
        infinite = (read.cast(pl.Float64, strict=False).fill_nan(None).abs() > LARGEST).fill_null(False)
        reasons = (read.str.strip_chars().is_in(NULL_WORDS), infinite)
        return texts, np.array([self.counts[:, codes.filter(reason).to_numpy()].sum(1) for reason in reasons])

    def _values(self, read: pl.Series) -> pl.Series:
        values = read.to_frame("read").select(self.meaning(pl.col("read").alias(self.column)).alias("value"))
        return values.select(pl.when(pl.col("value") != "").then("value")).to_series()

    def _raw_texts(self) -> pl.Series:
        """(size,) the texts as they were read; blank for code 0."""
        self.pieces = [pl.concat(self.pieces, rechunk=True)]
        return self.pieces[0].head(self.size)

    def _grow(self, size: int) -> None:
        self.counts = _with_room(self.counts, size)
        self.size = max(self.size, size)


def hashes_of(texts: pl.DataFrame) -> Iterator[np.ndarray]:
    """Per column (n,) uint64 of texts, the same as long as polars is; null is blank."""
    hashes = texts.select(pl.all().fill_null("").hash())
    return (column.to_numpy() for column in hashes.get_columns())


def _with_room(array: np.ndarray, size: int) -> np.ndarray:
    """The array with zeros behind, where its last axis is shorter. Doubled: a copy per chunk would cost the square."""
    room = array.shape[-1]
    return array if size <= room else np.pad(array, [*[(0, 0)] * (array.ndim - 1), (0, max(size - room, room))])


class MergedTexts(NamedTuple):
    """The texts of a field in all shards: one code for each text, or bucket, whatever its codes in the shards are."""

    code_maps: list[np.ndarray]  # per shard (its codes,) the code here
    texts: pl.Series | None  # (size,) null for code 0; None for buckets
    counts: np.ndarray  # (3, size) per split

    def names(self) -> pl.Series:
        """(size,) the texts, or for lack of them the numbers of the buckets; null for code 0."""
        return bucket_names(np.arange(self.counts.shape[1])) if self.texts is None else self.texts

    def unseen(self, known: np.ndarray) -> np.ndarray:
        """(3,) per split how many values have a code that is not `known` (size,) bool."""
        return self.counts[:, 1:] @ ~known[1:]

    def filled(self) -> float:
        """The share of the buckets that holds a train row.

        About as large is the share of the values that have to share their bucket: both are 1 - exp(-values / buckets).
        """
        return float(np.count_nonzero(self.counts[0, 1:]) / (self.counts.shape[1] - 1))


def merge_texts(shards: Iterable[tuple[pl.Series, np.ndarray]], check: Callable[[float], None]) -> MergedTexts:
    """The texts of shards, with their counts (3, codes), as one. `check` is told how many bytes they take so far."""
    dictionary, code_maps = Dictionary(meaning=lambda text: text), []  # shards hold what was meant already
    for texts, counts in shards:
        codes = dictionary.code(texts)
        dictionary.add(codes, counts)
        code_maps.append(codes)
        check(dictionary.num_bytes() + BYTES_PER_CODE * sum(map(len, code_maps)))
    return MergedTexts(code_maps, dictionary.texts(), dictionary.counts[:, : dictionary.size])


def merge_buckets(
    shards: Iterable[tuple[pl.Series, np.ndarray]], num_buckets: int, check: Callable[[float], None]
) -> MergedTexts:
    """The texts of shards as buckets, for a field without a vocabulary: a code is a bucket, of 24 bytes."""
    check(BYTES_PER_BUCKET * num_buckets)
    totals, code_maps = np.zeros((len(SPLITS), 1 + num_buckets), np.int64), []
    for texts, counts in shards:
        codes = bucket_codes(texts, num_buckets)
        for total, more in zip(totals, counts, strict=True):
            np.add.at(total, codes, more)
        code_maps.append(codes)
    return MergedTexts(code_maps, None, totals)


def bucket_codes(texts: pl.Series, num_buckets: int) -> np.ndarray:
    """1 + hash % num_buckets of each text, (n,) int32; 0 where null."""
    hashes = text_hashes(texts)
    return np.where(hashes, 1 + hashes % np.uint64(num_buckets), 0).astype(np.int32)


def bucket_names(codes: np.ndarray) -> pl.Series:
    """Buckets as texts; null for code 0."""
    numbers = pl.Series("value", codes)
    return numbers.set(numbers == 0, None).cast(pl.String)


def rank_texts(texts: pl.Series, counts: np.ndarray, min_count: int) -> pl.DataFrame:
    """VOCABULARY of the distinct texts counted at least `min_count` times; `code` is the index of each in `texts`.

    Ids count from 1 by descending count, then by text.
    """
    frequent = np.flatnonzero(counts >= min_count)
    seen = pl.DataFrame({"value": texts.gather(frequent), "count": counts[frequent], "code": frequent}).drop_nulls()
    ordered = seen.sort(["count", "value"], descending=[True, False])
    return ordered.with_row_index("id", offset=1).select(*VOCABULARY, "code").cast(dict(VOCABULARY))


def merge_vocabularies(vocabularies: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """One vocabulary of all values, by the sum of their counts."""
    counted = pl.concat(vocabularies).group_by("value").agg(pl.col("count").sum())
    return rank_texts(counted["value"], counted["count"].to_numpy(), 1)


def ids_of_texts(texts: pl.Series, vocabulary: pl.DataFrame) -> np.ndarray:
    """(n,) int32: the id of each text, 0 where the vocabulary lacks it."""
    ids = texts.to_frame("value").join(vocabulary, on="value", how="left", maintain_order="left")["id"]
    return ids.fill_null(0).to_numpy()
