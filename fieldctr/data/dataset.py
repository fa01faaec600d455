"""A prepared table, memory-mapped."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fieldctr.errors import UserError
from fieldctr.schema import Schema

SCHEMA_FILE = "schema.json"
FACTS_FILE = "facts.json"
PARTS = ("ids", "label", "values", "group", "pctr")


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

    def sample(self, rows: int, *, seed: int) -> "Split":
        """So many drawn rows in their order; a smaller sample is part of a larger one. UserError if it has fewer."""
        if rows > len(self):
            raise UserError(f"train_rows={rows} is not allowed: the train split has {len(self)} rows, or say all")
        chosen = np.sort(np.random.default_rng(seed).permutation(len(self))[:rows])
        arrays = {part: getattr(self, part) for part in PARTS}
        return Split(**{part: array[chosen] for part, array in arrays.items() if array is not None})

    @classmethod
    def load(cls, folder: Path, name: str) -> "Split":
        """Memory-map the files `name`.*.npy of a prepared folder; nothing is read yet."""
        paths = {part: folder / f"{name}.{part}.npy" for part in PARTS}
        return cls(**{part: np.load(path, mmap_mode="c") for part, path in paths.items() if path.exists()})


@dataclass(frozen=True)
class Dataset:
    """The three splits and what describes them."""

    schema: Schema
    train: Split
    valid: Split
    test: Split
    folder: Path
    name: str = ""

    @classmethod
    def load(cls, folder: Path, *, name: str) -> "Dataset":
        """A folder that `encode` wrote."""
        splits = (Split.load(folder, split) for split in ("train", "valid", "test"))
        return cls(Schema.load(folder / SCHEMA_FILE), *splits, folder, name)

    @property
    def digest(self) -> str:
        """Names the prepared table: equal for equal files and settings."""
        return self.folder.name

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Rows with reasons, positive rates, unseen shares, and what the source knows (a planted graph, ...)."""
        return json.loads((self.folder / FACTS_FILE).read_text(encoding="utf-8"))
