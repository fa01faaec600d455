"""Texts to codes while a table streams by, and codes to ids once all of it was seen."""

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl

from fieldctr.data.hashing import text_hashes
from fieldctr.data.specs import canonical_text
from fieldctr.data.table import SPLITS

WORDS: pl.Schema = pl.Schema(
    {"value": pl.String, "id": pl.Int32, "count": pl.Int64}
)  # a vocabulary, one row per known value


class Lexicon:
    """Texts to codes in order of appearance: 0 for null or blank, then every distinct text. Counts them per split."""

    def __init__(self) -> None:
        self.dtype = pl.Categorical(pl.Categories.random())
        # The first text gets code 0. And polars forgets a Categories mapping when its last Series dies: without this
        # one, codes would start again in the next chunk.
        self.alive = pl.Series([""], dtype=self.dtype)
        self.counts = np.zeros((len(SPLITS), 1), np.int64)
        self.column = "value"  # where the texts are from
        self.meaning: Callable[[pl.Expr], pl.Expr] = canonical_text  # what each says
        self.known = pl.Series("value", [], dtype=pl.String)

    def code(self, text: pl.Expr) -> pl.Expr:
        """The UInt32 codes of an expression of texts."""
        return text.fill_null("").cast(self.dtype).to_physical()

    def count(self, split: int, codes: np.ndarray) -> None:
        """Add codes of one split, of any shape."""
        more = np.bincount(codes.reshape(-1))
        if len(more) > self.counts.shape[1]:
            grown = max(len(more), 2 * self.counts.shape[1])  # doubling: a copy per chunk would cost the square
            self.counts = np.pad(self.counts, [(0, 0), (0, grown - self.counts.shape[1])])
        self.counts[split, : len(more)] += more

    @property
    def size(self) -> int:
        """Codes counted so far, 0 included."""
        return 1 + int(np.flatnonzero(self.counts.sum(0)).max(initial=0))

    def texts(self) -> pl.Series:
        """(size,) what every code says; null for code 0, and for a text that says nothing."""
        size = self.size
        if len(self.known) != size:
            codes = pl.Series(self.column, np.arange(size, dtype=np.uint32))
            read = codes.cat.to(self.dtype).cast(pl.String).to_frame()
            said = read.select(self.meaning(pl.col(self.column))).to_series().rename("value").to_frame()
            self.known = said.select(pl.when(pl.col("value") != "").then("value")).to_series()
        return self.known

    def silent(self) -> np.ndarray:
        """(3,) per split the values whose code is not 0 but says nothing."""
        return self.counts[:, 1 : self.size] @ self.texts().is_null().to_numpy()[1:]

    def unseen(self, ids: np.ndarray) -> np.ndarray:
        """(3,) per split the share of non-missing values whose code has no id; `ids` (codes,)."""
        counts = self.counts[:, 1 : len(ids)] * self.texts().is_not_null().to_numpy()[1:]
        return counts @ (ids[1:] == 0) / np.maximum(counts.sum(1), 1)


class Buckets:
    """A lexicon that keeps no text: a text's code, and id, is 1 + hash % num_buckets. Memory: 24 bytes a bucket."""

    def __init__(self, num_buckets: int) -> None:
        self.size = 1 + num_buckets
        self.counts = np.zeros((len(SPLITS), self.size), np.int64)

    def code(self, text: pl.Expr) -> pl.Expr:
        """The UInt32 codes of an expression of texts; 0 for null or blank."""
        return canonical_text(text).map_batches(self._codes, return_dtype=pl.UInt32, is_elementwise=True)

    def count(self, split: int, codes: np.ndarray) -> None:
        """Add codes of one split, of any shape."""
        self.counts[split] += np.bincount(codes.reshape(-1), minlength=self.size)

    def texts(self) -> pl.Series:
        """(size,) the number of each bucket, for lack of its texts; null for code 0."""
        return pl.Series("value", [None, *map(str, range(1, self.size))], dtype=pl.String)

    def unseen(self) -> np.ndarray:
        """(3,) per split the share of non-missing values whose bucket holds no train row."""
        counts = self.counts[:, 1:]
        return counts @ (counts[0] == 0) / np.maximum(counts.sum(1), 1)

    def filled(self) -> float:
        """Share of the buckets that hold a train row.

        About as large is the share of the values that have to share their bucket: both are 1 - exp(-values / buckets).
        """
        return float(np.count_nonzero(self.counts[0, 1:]) / (self.size - 1))

    def _codes(self, texts: pl.Series) -> pl.Series:
        hashes = text_hashes(texts)
        codes = 1 + hashes % np.uint64(self.size - 1)
        return pl.Series(texts.name, np.where(hashes, codes, 0).astype(np.uint32))


def vocabulary(texts: pl.Series, counts: np.ndarray, min_count: int) -> pl.DataFrame:
    """WORDS of the texts counted at least `min_count` times: ids from 1 by descending count, then by text."""
    seen = pl.DataFrame({"value": texts, "count": counts}).drop_nulls().group_by("value").sum()
    kept = seen.filter(pl.col("count") >= min_count).sort(["count", "value"], descending=[True, False])
    return kept.with_row_index("id", offset=1).select(*WORDS).cast(WORDS)


def merged(vocabularies: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """One vocabulary of all values, by the sum of their counts."""
    words = pl.concat(vocabularies)
    return vocabulary(words["value"], words["count"].to_numpy(), 1)


def lookup(texts: pl.Series, known: pl.DataFrame) -> np.ndarray:
    """(codes,) int32: the id of every code, 0 where the vocabulary `known` lacks its text."""
    ids = texts.to_frame("value").join(known, on="value", how="left", maintain_order="left")["id"]
    return ids.fill_null(0).to_numpy()
