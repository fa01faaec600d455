"""Texts to codes to ids, one chunk at a time."""

import gc

import numpy as np
import polars as pl

from fieldctr.data.lexicon import Lexicon, lookup, vocabulary


def coded(lexicon: Lexicon, texts: list[str | None]) -> list[int]:
    frame = pl.DataFrame({"text": texts}, schema={"text": pl.String})
    codes = frame.select(lexicon.code(pl.col("text"))).to_series().to_numpy().copy()
    lexicon.count(0, codes)
    return codes.tolist()


def test_codes_go_on_although_no_column_of_an_earlier_chunk_lives() -> None:
    """polars drops a mapping with its last Series: without the one that Lexicon keeps, chunk two starts again at 1."""
    lexicon = Lexicon()
    assert coded(lexicon, ["a", "b", None, "a"]) == [1, 2, 0, 1]
    gc.collect()
    assert coded(lexicon, ["c", "b", None]) == [3, 2, 0]
    gc.collect()
    assert lexicon.texts().to_list() == [None, "a", "b", "c"]


def test_two_lexicons_do_not_mix() -> None:
    one, other = Lexicon(), Lexicon()
    assert coded(one, ["x", "y"]) == [1, 2]
    assert coded(other, ["y"]) == [1]
    assert other.texts().to_list() == [None, "y"]


def test_spellings_of_one_number_share_an_id() -> None:
    lexicon = Lexicon()
    coded(lexicon, ["3", "3.0", "3.00", "3.5", "-0", "-0.0", "0", "v3.0", "3.0"])
    words = vocabulary(lexicon.texts(), lexicon.counts[0, : lexicon.size], 1)
    assert words.rows() == [("3", 1, 4), ("0", 2, 3), ("3.5", 3, 1), ("v3.0", 4, 1)]
    assert lookup(lexicon.texts(), words).tolist() == [0, 1, 1, 1, 3, 2, 2, 2, 4]


def test_counts_grow_with_the_codes() -> None:
    lexicon = Lexicon()
    rng = np.random.default_rng(1)
    for start in range(0, 3000, 500):
        coded(lexicon, [f"w{k}" for k in rng.integers(0, start + 1, 100)])
    assert lexicon.counts.sum() == 600
    assert len(lexicon.texts()) == lexicon.size
