"""Hashes that are the same on every machine and in every version; Python's and polars' own are not."""

import hashlib

import numpy as np
import polars as pl

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: what splitmix64 steps by


def mixed(x: np.ndarray) -> np.ndarray:
    """uint64 to uint64, one to one: the finaliser of splitmix64 (Steele et al., OOPSLA 2014)."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return x ^ (x >> np.uint64(31))


def hashed(texts: pl.Series, seed: int = 0) -> np.ndarray:
    """uint64 of each text by blake2b, about 1 us each; 0 where null."""
    salt = seed.to_bytes(8, "little")
    digests = (None if text is None else hashlib.blake2b(text.encode(), digest_size=8, salt=salt) for text in texts)
    numbers = (0 if digest is None else int.from_bytes(digest.digest(), "little") for digest in digests)
    return np.fromiter(numbers, np.uint64, len(texts))


def text_hashes(texts: pl.Series) -> np.ndarray:
    """uint64 of each text, 0.1 us each: 7x `hashed`, for every cell of a column; 0 where null or blank.

    sum_j factor_j * (byte_j + 1), mixed: the multilinear family of Lemire and Kaser, "Strongly universal string hashing
    is fast", Computer Journal 2014. Two texts of one field collide by chance only, not two chosen to collide.
    """
    texts = texts.fill_null("")
    sizes = texts.str.len_bytes().to_numpy().astype(np.int64)
    known = np.flatnonzero(sizes)
    hashes = np.zeros(len(texts), np.uint64)
    if len(known):
        starts = np.cumsum(sizes) - sizes
        letters = np.frombuffer(texts.str.join("").item().encode(), np.uint8).astype(np.uint64) + np.uint64(1)
        factors = mixed(np.arange(1, sizes.max() + 1, dtype=np.uint64) * GOLDEN) | np.uint64(1)
        letters *= factors[np.arange(len(letters)) - np.repeat(starts, sizes)]
        hashes[known] = mixed(np.add.reduceat(letters, starts[known]))
    return hashes


def unit_interval(hashes: np.ndarray) -> np.ndarray:
    """[0, 1) from uint64."""
    return (hashes >> np.uint64(11)).astype(np.float64) / 2**53


def unit_interval_of_rows(rows: np.ndarray, seed: int) -> np.ndarray:
    """[0, 1) from row numbers."""
    return unit_interval(mixed((rows.astype(np.uint64) + np.uint64((seed % 2**32) << 32)) * GOLDEN))
