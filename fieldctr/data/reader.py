"""Pass one over raw rows: chunks of codes and numbers, in constant memory."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl

from fieldctr.config import nearest
from fieldctr.data.lexicon import Lexicon
from fieldctr.data.specs import FieldSpec, values
from fieldctr.data.table import SPLITS
from fieldctr.errors import UserError

CHUNK = 1 << 16  # rows in memory at a time
# polars would keep a subplan that two branches share in memory, whole: what a table larger than memory cannot afford.
STREAMING = pl.QueryOptFlags(comm_subplan_elim=False)


class Chunk(NamedTuple):
    """Rows as codes and numbers, column by column (counting is 1.5x faster), and the extra columns asked for."""

    codes: np.ndarray  # (S, n) uint32, zeros for a numeric field
    numbers: np.ndarray  # (Q, n) float64, one line per numeric field, NaN where missing
    extra: pl.DataFrame


@dataclass(frozen=True)
class Reader:
    """The fields to read and the lexicons that reading fills; None for a numeric field."""

    specs: tuple[FieldSpec, ...]
    lexicons: tuple[Lexicon | None, ...]
    missing: np.ndarray  # (3, F) rows without a value, per split

    @classmethod
    def of(cls, specs: tuple[FieldSpec, ...]) -> "Reader":
        """With empty lexicons."""
        lexicons = tuple(None if spec.numeric else Lexicon() for spec in specs)
        return cls(specs, lexicons, np.zeros((len(SPLITS), len(specs)), np.int64))

    def chunks(self, frame: pl.LazyFrame, extra: Mapping[str, pl.Expr]) -> Iterator[Chunk]:
        """The frame's rows in order, CHUNK at a time."""
        schema = frame.collect_schema()
        require(schema, (spec.column for spec in self.specs))
        columns = self._columns(schema)
        codes = [name for name in columns if name.startswith("code ")]
        numbers = [name for name in columns if name.startswith("number ")]
        plan = frame.select(**extra, **columns)
        for batch in plan.collect_batches(chunk_size=CHUNK, optimizations=STREAMING):
            values = batch.select(numbers).to_numpy() if numbers else np.empty((len(batch), 0))
            yield Chunk(batch.select(codes).to_numpy().T, values.T, batch.drop(codes + numbers))

    def count(self, split: int, codes: np.ndarray, numbers: np.ndarray) -> None:
        """Take note of rows of one split: codes (S, n), numbers (Q, n)."""
        column = numeric = 0
        for i, (spec, lexicon) in enumerate(zip(self.specs, self.lexicons, strict=True)):
            if lexicon is None:
                blank = np.isnan(numbers[numeric])
                numeric += 1
            else:
                lexicon.count(split, codes[column : column + spec.width])
                blank = codes[column] == 0
            self.missing[split, i] += np.count_nonzero(blank)
            column += spec.width

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
