"""Pass one over raw rows: chunks of codes and numbers, in constant memory."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl

from fieldctr.config import nearest
from fieldctr.data.lexicon import Lexicon
from fieldctr.data.specs import FieldSpec, values
from fieldctr.errors import UserError

CHUNK = 1 << 16  # rows in memory at a time
# polars would keep a subplan that two branches share in memory, whole: what a table larger than memory cannot afford.
STREAMING = pl.QueryOptFlags(comm_subplan_elim=False)


class Chunk(NamedTuple):
    """Rows as codes and numbers, and the extra columns that were asked for."""

    codes: np.ndarray  # (n, S) uint32, column-major; for a numeric field a placeholder
    numbers: np.ndarray  # (n, Q) float64, one column per numeric field, NaN where missing
    extra: pl.DataFrame


@dataclass(frozen=True)
class Reader:
    """The fields to read and the lexicons that reading fills; None for a numeric field."""

    specs: tuple[FieldSpec, ...]
    lexicons: tuple[Lexicon | None, ...]

    @classmethod
    def of(cls, specs: tuple[FieldSpec, ...]) -> "Reader":
        """With empty lexicons."""
        return cls(specs, tuple(None if spec.numeric else Lexicon() for spec in specs))

    @property
    def num_columns(self) -> int:
        """S."""
        return sum(spec.width for spec in self.specs)

    @property
    def num_numbers(self) -> int:
        """Q, the fields whose numbers are read: quantile and value."""
        return sum(spec.numeric for spec in self.specs)

    def chunks(self, frame: pl.LazyFrame, extra: Mapping[str, pl.Expr]) -> Iterator[Chunk]:
        """The frame's rows in order, CHUNK at a time."""
        schema = frame.collect_schema()
        require(schema, (spec.column for spec in self.specs))
        columns = self._columns(schema)
        codes = [name for name in columns if name.startswith("code ")]
        numbers = [name for name in columns if name.startswith("number ")]
        plan = frame.select(**extra, **columns)
        for batch in plan.collect_batches(chunk_size=CHUNK, optimizations=STREAMING):
            read = batch.select(numbers).to_numpy() if numbers else np.empty((len(batch), 0))
            yield Chunk(batch.select(codes).to_numpy(), read, batch.drop(codes + numbers))

        for lexicon in filter(None, self.lexicons):
            lexicon.settle()

    def count(self, split: int, codes: np.ndarray) -> None:
        """Add the codes (n, S) of one split to the lexicons."""
        start = 0
        for spec, lexicon in zip(self.specs, self.lexicons, strict=True):
            if lexicon is not None:
                lexicon.count(split, codes[:, start : start + spec.width])
            start += spec.width

    def missing(self, codes: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """(F,) rows without a value."""
        blank, absent = (codes == 0).sum(0), np.isnan(numbers).sum(0)
        missing, column, numeric = [], 0, 0
        for spec in self.specs:
            missing.append(absent[numeric] if spec.numeric else blank[column])
            column, numeric = column + spec.width, numeric + spec.numeric
        return np.array(missing)

    def _columns(self, schema: pl.Schema) -> dict[str, pl.Expr]:
        columns = {}
        for i, (spec, lexicon) in enumerate(zip(self.specs, self.lexicons, strict=True)):
            value = values(spec, schema[spec.column])
            if lexicon is None:
                columns[f"code {i}"] = pl.lit(0, pl.UInt32)
                columns[f"number {i}"] = value.fill_null(float("nan"))
            elif spec.kind == "multi":
                for j in range(spec.width):
                    columns[f"code {i} {j}"] = lexicon.code(value.list.get(j, null_on_oob=True))
            else:
                columns[f"code {i}"] = lexicon.code(value)
        return columns


def require(schema: pl.Schema, columns: Iterable[str]) -> None:
    """UserError for a column that the table lacks."""
    for column in columns:
        if column not in schema:
            raise UserError(f"no column '{column}'. {nearest(column, schema)}All: {', '.join(schema)}")
