"""A prepared table, memory-mapped."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fieldctr.schema import Schema


@dataclass(frozen=True)
class Split:
    """Encoded samples of one split. All arrays share their first axis, the rows."""

    ids: np.ndarray  # (R, S) int32 local ids
    label: np.ndarray  # (R,) float32, 1.0 = click
    values: np.ndarray | None = None  # (R, N) float32, numeric fields; 0 where missing
    group: np.ndarray | None = None  # (R,) int32, code of the sample's group (user) for gAUC; not the clipped id
    pctr: np.ndarray | None = None  # (R,) float32, true click probability, where a generator knows it

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class Dataset:
    """The three splits and what describes them."""

    schema: Schema
    train: Split
    valid: Split
    test: Split
    folder: Path
