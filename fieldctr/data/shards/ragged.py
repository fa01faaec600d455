"""Values of multi-valued fields: as many per row as it has, so that they cost what they are and not a width."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Ragged(NamedTuple):
    """Lists of rows, one behind the other."""

    values: np.ndarray  # (sum of lengths,) codes, ids or hashes
    lengths: np.ndarray  # (n,) per row how many of them are its own

    @property
    def rows(self) -> np.ndarray:
        """The row of each value."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @property
    def positions(self) -> np.ndarray:
        """The position of each value in the list of its row, from 0."""
        starts = np.cumsum(self.lengths) - self.lengths
        return np.arange(len(self.values)) - np.repeat(starts, self.lengths)

    def take(self, rows: np.ndarray) -> "Ragged":
        """The lists of some rows, in the order of `rows`."""
        ends, lengths = np.cumsum(self.lengths), self.lengths[rows]
        behind = np.cumsum(lengths) - lengths  # where the lists of the chosen rows start in the result
        shift = np.repeat(ends[rows] - lengths - behind, lengths)
        return Ragged(self.values[np.arange(len(shift)) + shift], lengths)

    def part(self, start: int, stop: int) -> "Ragged":
        """The lists of neighbouring rows; nothing is copied."""
        first, count = int(self.lengths[:start].sum()), int(self.lengths[start:stop].sum())
        return Ragged(self.values[first : first + count], self.lengths[start:stop])

    def kept(self, mask: np.ndarray) -> "Ragged":
        """The lists without the values for which the mask is false."""
        return Ragged(self.values[mask], np.bincount(self.rows[mask], minlength=len(self.lengths)))

    def padded(self, width: int) -> np.ndarray:
        """(width, n): a column per row, with 0 behind its values. No list may be longer."""
        block = np.zeros((width, len(self.lengths)), self.values.dtype)
        block[self.positions, self.rows] = self.values
        return block


Codes = np.ndarray | Ragged  # of one field, (n,) or lists of n rows


def taken(codes: Codes, rows: np.ndarray) -> Codes:
    """The codes of some rows."""
    return codes.take(rows) if isinstance(codes, Ragged) else np.take(codes, rows)


def part(codes: Codes, start: int, stop: int) -> Codes:
    """The codes of neighbouring rows."""
    return codes.part(start, stop) if isinstance(codes, Ragged) else codes[start:stop]


def values_of(codes: Codes) -> np.ndarray:
    """All codes, whatever row they are of."""
    return codes.values if isinstance(codes, Ragged) else codes


def joined(parts: Sequence[Codes]) -> Codes:
    """The codes of rows that follow one another."""
    lists = [each for each in parts if isinstance(each, Ragged)]
    if lists:
        return Ragged(*map(np.concatenate, zip(*lists, strict=True)))
    return np.concatenate([each for each in parts if not isinstance(each, Ragged)])
