"""Texts to codes while rows stream by, codes of many shards to those of one table, and texts to ids."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from fieldctr.data.fields.spelling import LARGEST, NULL_WORDS, canonical
from fieldctr.data.hashing import text_hashes
from fieldctr.data.table import SPLITS

BYTES_PER_TEXT, BYTES_PER_LETTER = 160, 3  # of a distinct text, without and for each byte of it
BYTES_PER_CODE, BYTES_PER_BUCKET = 8, 36  # of a shard's code, and of a bucket
VOCABULARY: pl.Schema = pl.Schema({"value": pl.String, "id": pl.Int32, "count": pl.Int64})  # a row per known value
FIRST_TEXTS = 1 << 11  # that are coded before the first of them are remembered
MEASURED_TEXTS = 1 << 16  # that tell how long a text is
SLOTS = (1 << 12, 1 << 18)  # of the frequent texts, 12 bytes each: at first, and at most


class Dictionary:
    """Texts to codes in order of appearance: 0 for null or blank, then every distinct text. Counts them per split.

    Most cells repeat a frequent text: they find their code by the text's 64-bit hash, in a table that fits the cache,
    at a third of the cost of polars' own look-up. Two of 10^7 texts share a hash with a probability of 3e-6.
    """

    def __init__(self, column: str = "value", meaning: Callable[[pl.Expr], pl.Expr] = canonical) -> None:
        self.dtype = pl.Categorical(pl.Categories.random())
        # The first text gets code 0. And polars forgets a Categories mapping when its last Series dies: without this
        # one, codes would start again in the next chunk.
        self.alive = pl.Series([""], dtype=self.dtype)
        self.hashes, self.recent = np.zeros(0, np.uint64), np.zeros(0, np.uint32)
        self._make_room(SLOTS[0])
        self.counts = np.zeros((len(SPLITS), 1), np.int64)
        self.size = 1  # codes counted or seen so far, 0 included
        self.measured_texts, self.measured_bytes = 1, 0  # how long a text is
        self.column, self.meaning = column, meaning  # where the texts are from, and what each says

    def code(self, texts: pl.Series) -> np.ndarray:
        """The codes (n,) uint32 of texts."""
        if len(self.hashes) < min(2 * self.size, SLOTS[1]):
            self._make_room(4 * len(self.hashes))
        if self.size > 1 or not len(texts):
            return self._code(texts)
        pieces, start = [], 0  # doubling, lest most of the first texts be coded before one of them is remembered
        while start < len(texts):
            pieces.append(self._code(texts[start : 2 * start + FIRST_TEXTS]))
            start = 2 * start + FIRST_TEXTS
        return np.concatenate(pieces)

    def _code(self, texts: pl.Series) -> np.ndarray:
        hashes = texts.hash().to_numpy()
        slots = self._slots(hashes)
        codes = self.recent.take(slots, mode="clip")  # a third less than recent[slots], which checks them
        rows = np.flatnonzero(self.hashes.take(slots, mode="clip") != hashes)
        if len(rows):
            codes[rows] = self.code_distinct(texts.gather(rows))
            self._remember(hashes[rows], codes[rows])
        return codes

    def _slots(self, hashes: np.ndarray) -> np.ndarray:
        return (hashes & np.uint64(len(self.hashes) - 1)).view(np.int64)

    def _remember(self, hashes: np.ndarray, codes: np.ndarray) -> None:
        slots = self._slots(hashes)
        self.hashes[slots], self.recent[slots] = hashes, codes  # where several have one slot, the last stays

    def _make_room(self, slots: int) -> None:
        hashes, codes = self.hashes, self.recent
        self.hashes, self.recent = np.zeros(slots, np.uint64), np.zeros(slots, np.uint32)  # hash and code by slot
        self.hashes[0] = 1  # else a hash of 0 would seem to be known
        used = hashes > 1
        self._remember(hashes[used], codes[used])

    def code_distinct(self, texts: pl.Series) -> np.ndarray:
        """The codes (n,) uint32 of texts of which few repeat: no table of frequent ones is asked."""
        if self.measured_texts < MEASURED_TEXTS:
            self.measured_texts += len(texts)
            self.measured_bytes += int(texts.str.len_bytes().sum())
        return texts.fill_null("").cast(self.dtype).to_physical().to_numpy()

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
        return pl.Series(np.arange(self.size, dtype=np.uint32)).cat.to(self.dtype).cast(pl.String)

    def _grow(self, size: int) -> None:
        if size > self.counts.shape[1]:
            grown = max(size, 2 * self.counts.shape[1])  # doubling: a copy per chunk would cost the square
            self.counts = np.pad(self.counts, [(0, 0), (0, grown - self.counts.shape[1])])
        self.size = max(self.size, size)


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
        codes = dictionary.code_distinct(texts)
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
