"""Hashes of texts, as the prepared table has them."""

import hashlib
from collections.abc import Sequence

MASK, GOLDEN = (1 << 64) - 1, 0x9E3779B97F4A7C15
FOLD = 255  # the lowest bits of a statistic's key


def mixed(x: int) -> int:
    """The finaliser of splitmix64."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> shift)) * factor & MASK
    return x ^ (x >> 31)


def bucket(text: str, num_buckets: int) -> int:
    """The bucket of a text, from 1."""
    hashed = sum((mixed(j * GOLDEN & MASK) | 1) * (letter + 1) for j, letter in enumerate(text.encode(), 1))
    return 1 + mixed(hashed & MASK) % num_buckets


def blake(text: str) -> int:
    """64 bits of blake2b."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def key_of_cross(hashes: Sequence[int]) -> int:
    """The key of a value, or of a cross of values, in the counts of a statistic."""
    key = 0
    for one in hashes:
        key = mixed(key + one & MASK)
    return key & ~FOLD
