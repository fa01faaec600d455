"""Pass one over raw rows: chunks of codes and numbers, in constant memory."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl

from fieldctr.config import nearest
from fieldctr.data.lexicon import Buckets, Lexicon
from fieldctr.data.specs import FieldSpec, HistorySpec, Spec, StatisticSpec, instant, meaning, values
from fieldctr.data.table import SPLITS
from fieldctr.errors import UserError

CHUNK = 1 << 16  # rows in memory at a time
# polars would keep a subplan that two branches share in memory, whole: what a table larger than memory cannot afford.
STREAMING = pl.QueryOptFlags(comm_subplan_elim=False)


class Chunk(NamedTuple):
    """Rows as codes and numbers, column by column (counting is 1.5x faster), and the extra columns asked for."""

    codes: np.ndarray  # (S, n) uint32, zeros for a numeric field
    numbers: np.ndarray  # (Q + T, n) float64, one line per numeric field and per time, NaN where missing
    extra: pl.DataFrame


@dataclass(frozen=True)
class Reader:
    """What to read: the fields, then what else statistics are of and histories are by. Reading fills the lexicons.

    A numeric field has no lexicon. `times` are the columns, with units, that order the rows for these.
    """

    specs: tuple[FieldSpec, ...]
    times: tuple[tuple[str, str], ...]
    lexicons: tuple[Lexicon | Buckets | None, ...]
    missing: np.ndarray  # (3, F) rows without a value, per split

    @classmethod
    def of(cls, specs: tuple[Spec, ...], times: tuple[tuple[str, str], ...] = ()) -> "Reader":
        """With empty lexicons."""
        fields = [spec for spec in specs if isinstance(spec, FieldSpec)]
        sources = dict.fromkeys(name for spec in specs if isinstance(spec, StatisticSpec) for name in spec.of)
        known = {spec.name for spec in specs}
        others = [FieldSpec(name, name) for name in sources if name not in known]
        others += [spec.user(specs) for spec in specs if isinstance(spec, HistorySpec)]
        read = tuple(dict.fromkeys((*fields, *others)))
        return cls(read, times, tuple(map(_lexicon, read)), np.zeros((len(SPLITS), len(read)), np.int64))

    def chunks(self, frame: pl.LazyFrame, extra: Mapping[str, pl.Expr]) -> Iterator[Chunk]:
        """The frame's rows in order, CHUNK at a time."""
        schema = frame.collect_schema()
        read = (column for spec in self.specs for column in spec.reads)
        require(schema, (*read, *(column for column, _ in self.times)))
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

    def finish(self) -> None:
        """Once all rows were counted: find out what their texts say. polars raises for one that is no number."""
        for i, lexicon in enumerate(self.lexicons):
            if isinstance(lexicon, Lexicon):
                self.missing[:, i] += lexicon.silent()

    def _columns(self, schema: pl.Schema) -> dict[str, pl.Expr]:
        columns = {}
        for i, (spec, lexicon) in enumerate(zip(self.specs, self.lexicons, strict=True)):
            value = values(spec, schema)
            if isinstance(lexicon, Lexicon):
                lexicon.column, lexicon.meaning = spec.column, meaning(spec, schema[spec.column])
            if lexicon is None:
                columns[f"code {i}"] = pl.lit(0, pl.UInt32)
                columns[f"number {i}"] = value.fill_null(float("nan"))
            elif spec.kind == "multi":
                for j in range(spec.width):
                    columns[f"code {i} {j}"] = lexicon.code(value.list.get(j, null_on_oob=True))
            else:
                columns[f"code {i}"] = lexicon.code(value)
        for i, (column, unit) in enumerate(self.times):
            columns[f"number time {i}"] = instant(column, schema[column], unit).fill_null(float("nan"))
        return columns


def _lexicon(spec: FieldSpec) -> Lexicon | Buckets | None:
    if spec.numeric:
        return None
    return Buckets(spec.num_buckets) if spec.num_buckets else Lexicon()


def require(schema: pl.Schema, columns: Iterable[str]) -> None:
    """UserError for a column that the table lacks."""
    for column in columns:
        if column not in schema:
            raise UserError(f"no column '{column}'. {nearest(column, schema)}All: {', '.join(schema)}")
