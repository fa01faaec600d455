"""A prepared table, memory-mapped."""

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fieldctr.artifacts import check_stage, is_earlier
from fieldctr.checksums import sealed
from fieldctr.data.lookups import EVENTS_FILE, HistoryEvents, Vectors, vectors_file
from fieldctr.data.table import SPLITS
from fieldctr.errors import UserError
from fieldctr.schema import Schema

SCHEMA_FILE = "schema.json"
FACTS_FILE = "facts.json"
PARTS = ("ids", "label", "values", "group", "pctr", "weight", "windows")


@dataclass(frozen=True)
class Split:
    """Encoded samples of one split. All arrays share their first axis, the rows."""

    ids: np.ndarray  # (R, columns) int32 local ids, those of histories aside: ask `ids_of` for all S
    label: np.ndarray  # (R,) float32, 1.0 = click
    values: np.ndarray | None = None  # (R, N) float32, numeric fields; 0 where missing
    group: np.ndarray | None = (
        None  # (R,) int32, code of the sample's group (user) for gAUC from 1, 0 for none; not its id
    )
    pctr: np.ndarray | None = None  # (R,) float32, true click probability, where a generator knows it
    weight: np.ndarray | None = None  # (R,) float32 sample weights; None: each row counts once
    windows: np.ndarray | None = None  # (R, 2 histories) int32 or int64 starts, then ends, of each history
    histories: HistoryEvents | None = None
    vectors: tuple[Vectors, ...] = ()  # of the vector fields, in their order

    def __len__(self) -> int:
        return len(self.label)

    @property
    def mean_weight(self) -> float | None:
        """The mean weight of its samples; None where they have no weights."""
        return None if self.weight is None else float(self.weight.mean(dtype=np.float64))

    def ids_of(self, rows: slice) -> np.ndarray:
        """(n, S) int32 local ids of some rows, their histories sliced."""
        if self.windows is None or self.histories is None:
            return self.ids[rows]
        return np.concatenate([self.ids[rows], *self.histories.ids(self.windows[rows])], axis=1)

    def take(self, rows: slice | np.ndarray) -> "Split":
        """The `rows` as a split. HistoryEvents and vectors are not cut."""
        arrays = {part: getattr(self, part) for part in PARTS}
        taken = {part: array[rows] for part, array in arrays.items() if array is not None}
        return Split(**taken, histories=self.histories, vectors=self.vectors)

    def sample(self, rows: int, *, seed: int) -> "Split":
        """A random sample of the rows, in their order; smaller ones are part of larger ones. UserError for too many."""
        if rows > len(self):
            raise UserError(f"train_rows={rows} is not allowed: the train split has {len(self)} rows, or say all")
        return self.take(np.sort(np.random.default_rng(seed).permutation(len(self))[:rows]))

    @classmethod
    def load(cls, folder: Path, name: str, schema: Schema) -> "Split":
        """Memory-map the files `name`.*.npy of a prepared folder; nothing is read yet."""
        paths = {part: folder / f"{name}.{part}.npy" for part in PARTS}
        return cls.of(folder, schema, **{part: load(path) for part, path in paths.items() if path.exists()})

    @classmethod
    def of(cls, folder: Path, schema: Schema, **arrays: np.ndarray) -> "Split":
        """Rows of a prepared folder's table; what their windows point into is memory-mapped."""
        histories = None
        if "windows" in arrays:
            num_histories = arrays["windows"].shape[1] // 2
            widths = tuple(field.width for field in schema.fields[-num_histories:])
            histories = HistoryEvents(load(folder / EVENTS_FILE), widths)
        return cls(**arrays, histories=histories, vectors=load_vectors(folder, schema))

    @classmethod
    def empty(cls, schema: Schema) -> "Split":
        """A split of no rows, with the columns of the schema."""
        values = np.empty((0, schema.num_numeric), np.float32)
        return cls(np.empty((0, schema.num_columns), np.int32), np.empty(0, np.float32), values)


def load_vectors(folder: Path, schema: Schema) -> tuple[Vectors, ...]:
    """The vectors of the vector fields, memory-mapped."""
    columns = [start for field, start in zip(schema.fields, schema.column_offsets, strict=True) if field.vector]
    return tuple(Vectors(column, load(folder / vectors_file(i))) for i, column in enumerate(columns))


def load(path: Path) -> np.ndarray:
    """Memory-map a .npy file."""
    return np.load(path, mmap_mode="c")


@dataclass(frozen=True)
class Dataset:
    """The three splits and what describes them."""

    schema: Schema
    train: Split
    valid: Split
    test: Split
    folder: Path
    name: str = ""
    negative_rate: float | None = None  # share of the non-clicks that were kept; None: all, for all one knows

    @classmethod
    def load(cls, folder: Path, *, name: str, negative_rate: float | None = None) -> "Dataset":
        """A folder that `encode` wrote. `negative_rate` is in no file of it: it changes none."""
        schema = Schema.load(folder / SCHEMA_FILE)
        vectors = load_vectors(folder, schema)  # one copy for all
        splits = (replace(Split.load(folder, split, schema), vectors=vectors) for split in SPLITS)
        return cls(schema, *splits, folder, name, negative_rate)

    @property
    def digest(self) -> str:
        """Names the prepared table: equal for equal files and settings."""
        return self.folder.name

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Rows with reasons, positive rates, unseen shares, and what the source knows (a planted graph, ...)."""
        return json.loads((self.folder / FACTS_FILE).read_text(encoding="utf-8"))


def check_table(folder: Path, splits: Iterable[str] = SPLITS, *, cure: str = "") -> None:
    """UserError where a prepared table is not what was written. The matrices of other splits are not read whole."""
    if is_earlier(folder):
        print(f"fieldctr: {folder} is of an earlier version, without checksums: not checked", file=sys.stderr)
        return
    cure = cure or f"Remove {folder}, and prepare the table again"
    files = sealed(folder, cure=cure)
    idle = {name for name in files for split in SPLITS if split not in splits and name.startswith(f"{split}.")}
    check_stage(folder, files.keys() - idle, sizes=idle, cure=cure)


def refuse_other_rows(folder: Path, split: str, rows: int) -> None:
    """UserError where a matrix of a split has not so many rows."""
    for path in folder.glob(f"{split}.*.npy"):
        if (written := len(np.load(path, mmap_mode="r"))) != rows:
            raise UserError(f"{path.name} has {written:,} rows, and {rows:,} were counted. Nothing was written")
