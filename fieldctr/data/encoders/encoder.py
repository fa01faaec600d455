"""What every kind of field does with a table. A signature: nothing inherits from it."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import numpy as np
import polars as pl

from fieldctr.data.budget import Budget
from fieldctr.data.coverage import Coverage
from fieldctr.data.encoding import Encoding
from fieldctr.data.fields.kinds import Spec
from fieldctr.data.numbers import Binning, Scaling
from fieldctr.data.shards import Block, Shards
from fieldctr.data.shards.in_memory import NewBlock
from fieldctr.schema import Field


class Columns(NamedTuple):
    """What the rows of a block get of one field: some of these."""

    ids: np.ndarray | None = None  # (width, n) int32
    values: np.ndarray | None = None  # (n,) float32
    windows: tuple[np.ndarray, np.ndarray] | None = None  # (n,) twice: where they start and end among the events


class Learned(NamedTuple):
    """What a field is once it is fitted to train."""

    field: Field  # what a model sees
    vocabulary: pl.DataFrame | None = None  # value, id and count, by id
    scale: Binning | Scaling | None = None
    facts: Mapping[str, object] = {}  # beside its coverage


class FittedTexts(NamedTuple):
    """Ids and hashes of the texts of a field, or of another column that was read, for the codes of some shards."""

    vocabulary: pl.DataFrame | None  # None for a hash
    ids: list[np.ndarray]  # per shard (codes,) int32
    hashes: list[np.ndarray]  # per shard (codes,) uint64, if a statistic is of it
    coverage: list[Coverage]  # per split
    filled: float | None = None  # share of the buckets with a train row


class Training(NamedTuple):
    """What encoders are fitted to."""

    shards: Shards
    budget: Budget
    raw_dir: Path  # where files of fields lie
    texts: dict[str, FittedTexts]  # by field or column: what the encoder of texts, the first, leaves to the others


class Loading(NamedTuple):
    """What encoders read back, and the rows that they are to encode."""

    folder: Path
    saved: Encoding
    rows: NewBlock
    texts: dict[str, FittedTexts]  # as in Training


class Encoder(Protocol):
    """All fields of one kind: some of them share a vocabulary, a pass or a file."""

    @classmethod
    def fit(cls, specs: tuple[Spec, ...], training: Training) -> Self:
        """Learn from the train rows. `specs` are those of all fields."""
        ...

    @classmethod
    def load(cls, specs: tuple[Spec, ...], loading: Loading) -> Self:
        """The encoder of a prepared table, for new rows, from its files, encoding.json and vocabulary.parquet."""
        ...

    def apply(self, block: Block) -> Mapping[str, Columns]:
        """The columns of the block's rows, by field."""
        ...

    def learned(self) -> Mapping[str, Learned]:
        """What was learned of each field, by its name."""
        ...

    def coverage(self) -> Mapping[str, list[Coverage]]:
        """What is missing and unseen, by field and split; complete once all rows are encoded."""
        ...

    def save(self, folder: Path) -> None:
        """Files of its own in the prepared folder, beside encoding.json and vocabulary.parquet."""
        ...
