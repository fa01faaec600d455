"""Raw rows as chunks of texts and numbers, in constant memory."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import polars as pl

from fieldctr.config import nearest
from fieldctr.data.lexicon import Lexicon
from fieldctr.data.specs import FieldSpec, HistorySpec, Spec, StatisticSpec, meaning, values
from fieldctr.data.table import OWN
from fieldctr.data.times import instant
from fieldctr.errors import UserError

CHUNK = 1 << 16  # rows in memory at a time; what is fitted to numbers sees so many at once
# polars would keep a subplan that two branches share in memory, whole: what a table larger than memory cannot afford.
STREAMING = pl.QueryOptFlags(comm_subplan_elim=False)
NO_CODES = np.zeros(0, np.uint16)  # in the place of a numeric field's


class Chunk(NamedTuple):
    """Rows column by column (counting is 1.5x faster), and the extra columns asked for."""

    texts: pl.DataFrame  # a column per id column; none for a numeric field
    numbers: np.ndarray  # (Q + T, n) float64, a line per numeric field, as `told_number` tells it, and per time
    extra: pl.DataFrame


@dataclass(frozen=True)
class Reader:
    """What to read: the fields, then columns that are no field but that a statistic is of, then the groups.

    A numeric field has no texts. `times` are the columns, with units, that order the rows for statistics.
    """

    specs: tuple[FieldSpec, ...]
    times: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, specs: tuple[Spec, ...], times: tuple[tuple[str, str], ...] = (), group: str | None = None) -> "Reader":
        """What the specs need."""
        fields = [spec for spec in specs if isinstance(spec, FieldSpec)]
        sources = dict.fromkeys(name for spec in specs if isinstance(spec, StatisticSpec) for name in spec.of)
        known = {spec.name for spec in specs}
        others = [FieldSpec(name, name) for name in sources if name not in known]
        others += [spec.user(specs) for spec in specs if isinstance(spec, HistorySpec)]
        read = dict.fromkeys((*fields, *others))
        return cls((*read, *([FieldSpec("", group)] if group else [])), times)

    @property
    def texts(self) -> list[FieldSpec]:
        """The specs with texts."""
        return [spec for spec in self.specs if not spec.numeric]

    @property
    def num_columns(self) -> int:
        """Columns of codes or numbers that a row has."""
        return sum(spec.width for spec in self.specs) + len(self.times)

    @property
    def num_numeric(self) -> int:
        """How many specs have a number."""
        return len(self.specs) - len(self.texts)

    def lexicons(self) -> list[Lexicon]:
        """Empty ones for the specs with texts."""
        return [Lexicon(spec.column, meaning(spec)) for spec in self.texts]

    def chunks(self, frame: pl.LazyFrame, extra: Mapping[str, pl.Expr], rows: int = CHUNK) -> Iterator[Chunk]:
        """The frame's rows in order, so many at a time."""
        schema = frame.collect_schema()
        read = (column for spec in self.specs for column in spec.reads)
        require(schema, (*read, *(column for column, _ in self.times)))
        columns = self._columns(schema)
        texts, numbers = ([name for name in columns if name.startswith(kind)] for kind in ("text", "number"))
        plan = frame.select(**extra, **columns)
        for batch in plan.collect_batches(chunk_size=rows, optimizations=STREAMING):
            values = batch.select(numbers).to_numpy() if numbers else np.empty((len(batch), 0))
            yield Chunk(batch.select(texts), values.T, batch.select(list(extra)))

    def codes(self, lexicons: list[Lexicon], texts: pl.DataFrame) -> list[np.ndarray]:
        """Per column of `texts` its codes (n,) uint32."""
        owners = [lexicon for spec, lexicon in zip(self.texts, lexicons, strict=True) for _ in range(spec.width)]
        return [lexicon.code(column) for column, lexicon in zip(texts.get_columns(), owners, strict=True)]

    def count(self, lexicons: list[Lexicon], split: int, codes: list[np.ndarray]) -> None:
        """Count the codes of rows of one split; of code 0 of a multi-valued field the rows without any value."""
        columns = iter(codes)
        for spec, lexicon in zip(self.texts, lexicons, strict=True):
            lexicon.count(split, next(columns))
            for part in islice(columns, spec.width - 1):
                lexicon.count(split, part[part > 0])

    def see(self, lexicons: list[Lexicon], codes: list[np.ndarray]) -> None:
        """Take note of the codes of rows of no split."""
        columns = iter(codes)
        for spec, lexicon in zip(self.texts, lexicons, strict=True):
            for part in islice(columns, spec.width):
                lexicon.see(part)

    def aligned(self, columns: list[np.ndarray]) -> list[np.ndarray]:
        """The columns of codes with NO_CODES in the place of each numeric field."""
        rest = iter(columns)
        return [part for spec in self.specs for part in ([NO_CODES] if spec.numeric else islice(rest, spec.width))]

    def _columns(self, schema: pl.Schema) -> dict[str, pl.Expr]:
        columns = {}
        for i, spec in enumerate(self.specs):
            value = values(spec, schema)
            if spec.numeric:
                columns[f"number {i}"] = value.fill_null(float("nan"))
            elif spec.kind == "multi":
                for j in range(spec.width):
                    columns[f"text {i} {j}"] = value.list.get(j, null_on_oob=True)
            else:
                columns[f"text {i}"] = value
        for i, (name, unit) in enumerate(self.times):
            columns[f"number time {i}"] = instant(name, schema[name], unit).fill_null(float("nan"))
        return columns


def require(schema: pl.Schema, columns: Iterable[str]) -> None:
    """UserError for a column that the table lacks."""
    for column in columns:
        if column not in schema:
            names = [name for name in schema if not name.startswith(OWN)]
            raise UserError(f"no column '{column}'. {nearest(column, names)}All: {', '.join(names)}")
