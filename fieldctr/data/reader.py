"""Raw rows as chunks of texts and numbers, in constant memory."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import polars as pl

from fieldctr.config import nearest
from fieldctr.data.columns import OWN
from fieldctr.data.lexicon import Lexicon
from fieldctr.data.lists import TYPICAL, cells, coded
from fieldctr.data.ragged import Codes, Ragged, values_of
from fieldctr.data.specs import FieldSpec, HistorySpec, Spec, StatisticSpec, meaning, values
from fieldctr.data.times import instant
from fieldctr.errors import UserError

CHUNK = 1 << 16  # rows in memory at a time; what is fitted to numbers sees so many at once
# polars would keep a subplan that two branches share in memory, whole: what a table larger than memory cannot afford.
STREAMING = pl.QueryOptFlags(comm_subplan_elim=False)
NO_CODES = np.zeros(0, np.uint16)  # in the place of a numeric field's


class Chunk(NamedTuple):
    """Rows column by column (counting is 1.5x faster), and the extra columns asked for."""

    texts: pl.DataFrame  # a column per field with texts: texts, or the lists of a multi-valued one
    numbers: np.ndarray  # (Q + T, n) float64, a line per numeric field, as `told_number` tells it, and per time
    extra: pl.DataFrame


class Lists(NamedTuple):
    """How many values of each row of the M multi-valued fields are left out."""

    cut: np.ndarray  # (M, n) that were one too many
    null_words: np.ndarray  # (M, n) that say that there is none


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

    @cached_property
    def texts(self) -> list[FieldSpec]:
        """The specs with texts."""
        return [spec for spec in self.specs if not spec.numeric]

    @cached_property
    def places(self) -> dict[FieldSpec, int]:
        """Where each spec with texts stands among these; `index` would compare thousands of fields with each other."""
        return {spec: i for i, spec in enumerate(self.texts)}

    @property
    def num_columns(self) -> int:
        """Columns of texts or numbers that memory is planned for; of a longer list it never holds more at a time."""
        lists = (len(spec.columns) + min(spec.width, TYPICAL) for spec in self.lists)
        return len(self.specs) - len(self.lists) + sum(lists) + len(self.times)

    @property
    def lists(self) -> list[FieldSpec]:
        """The specs with lists of texts."""
        return [spec for spec in self.specs if spec.kind == "multi"]

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

    def codes(self, lexicons: list[Lexicon], texts: pl.DataFrame) -> tuple[list[Codes], Lists]:
        """Per column of `texts` its codes uint32, (n,) or ragged; and what of the lists of each row is left out."""
        columns, left_out = [], []
        for spec, lexicon, column in zip(self.texts, lexicons, texts.get_columns(), strict=True):
            if spec.kind == "multi":
                found = coded(spec, lexicon, column)
                columns.append(found.codes)
                left_out.append((found.cut, found.null_words))
            else:
                columns.append(lexicon.code(column))
        counts = np.array(left_out, np.int64).reshape(len(left_out), 2, len(texts))
        return columns, Lists(counts[:, 0], counts[:, 1])

    def count(self, lexicons: list[Lexicon], split: int, codes: Sequence[Codes]) -> None:
        """Count the codes of rows of one split; of code 0 of a multi-valued field the rows without any value."""
        for lexicon, column in zip(lexicons, codes, strict=True):
            lexicon.count(split, values_of(column))
            if isinstance(column, Ragged):
                lexicon.count_missing(split, int((column.lengths == 0).sum()))

    def see(self, lexicons: list[Lexicon], codes: Sequence[Codes]) -> None:
        """Take note of the codes of rows of no split."""
        for lexicon, column in zip(lexicons, codes, strict=True):
            lexicon.see(values_of(column))

    def aligned(self, columns: Sequence[Codes]) -> list[Codes]:
        """The columns of codes with NO_CODES in the place of each numeric field."""
        rest = iter(columns)
        return [NO_CODES if spec.numeric else next(rest) for spec in self.specs]

    def _columns(self, schema: pl.Schema) -> dict[str, pl.Expr]:
        columns = {}
        for i, spec in enumerate(self.specs):
            if spec.numeric:
                columns[f"number {i}"] = values(spec, schema).fill_null(float("nan"))
            else:
                columns[f"text {i}"] = cells(spec, schema) if spec.kind == "multi" else values(spec, schema)
        for i, (name, unit) in enumerate(self.times):
            columns[f"number time {i}"] = instant(name, schema[name], unit).fill_null(float("nan"))
        return columns


def require(schema: pl.Schema, columns: Iterable[str]) -> None:
    """UserError for a column that the table lacks."""
    for column in columns:
        if column not in schema:
            names = [name for name in schema if not name.startswith(OWN)]
            raise UserError(f"no column '{column}'. {nearest(column, names)}All: {', '.join(names)}")
