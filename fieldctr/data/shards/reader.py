"""Raw rows as chunks of texts and numbers, in constant memory."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import polars as pl

from fieldctr.data.columns import OWN
from fieldctr.data.fields.expressions import meaning, values
from fieldctr.data.fields.kinds import FieldSpec, Spec, Time
from fieldctr.data.fields.times import instant
from fieldctr.data.shards.dictionary import Dictionary, hashes_of
from fieldctr.data.shards.lists import TYPICAL, cells, coded
from fieldctr.data.shards.ragged import Codes, Ragged, values_of
from fieldctr.data.table import CHUNK
from fieldctr.errors import UserError, listing, nearest

# polars would keep a subplan that two branches share in memory, whole: what a table larger than memory cannot afford.
STREAMING = pl.QueryOptFlags(comm_subplan_elim=False)
GROUP = f"{OWN}group"  # the name under which the groups are read; no field has it


class Chunk(NamedTuple):
    """Rows column by column (counting is 1.5x faster), and the extra columns asked for."""

    texts: pl.DataFrame  # a column per entry of `Reader.texts`: texts, or the lists of a multi-valued field
    numbers: np.ndarray  # (numbers + times, n) float64, by numeric field, as `told_number` tells it, and by time
    extra: pl.DataFrame


class LeftOut(NamedTuple):
    """What is left out of a multi-valued field's lists, per row."""

    cut: np.ndarray  # (n,) values that were one too many
    null_words: np.ndarray  # (n,) values that say that there is none


@dataclass(frozen=True)
class Reader:
    """What to read of the raw columns: fields, what statistics and histories need besides, times, and the groups."""

    fields: tuple[FieldSpec, ...]  # of different names: those of the schema, then the columns of others
    times: tuple[Time, ...] = ()  # that order the rows for statistics and histories
    group: str | None = None  # the column whose values group the rows

    @classmethod
    def of(cls, specs: tuple[Spec, ...], group: str | None = None) -> "Reader":
        """What the specs need of a table with labels and splits."""
        times = dict.fromkeys(time for spec in specs for time in spec.times)
        return cls(_read(specs), tuple(times), group)

    @classmethod
    def of_new_rows(cls, specs: tuple[Spec, ...]) -> "Reader":
        """What the specs need of rows to score."""
        times = dict.fromkeys(time for spec in specs for time in spec.times_of_new_rows)
        return cls(_read(specs), tuple(times))

    @cached_property
    def texts(self) -> dict[str, FieldSpec]:
        """What is read as texts, by its name; the groups last, as GROUP."""
        groups = [FieldSpec(GROUP, self.group)] if self.group is not None else []
        return {spec.name: spec for spec in (*self.fields, *groups) if not spec.numeric}

    @cached_property
    def numbers(self) -> dict[str, FieldSpec]:
        """The fields that are read as numbers, by their names."""
        return {spec.name: spec for spec in self.fields if spec.numeric}

    @cached_property
    def lists(self) -> dict[str, FieldSpec]:
        """The fields that are read as lists of texts, by their names."""
        return {name: spec for name, spec in self.texts.items() if spec.kind == "multi"}

    @property
    def num_columns(self) -> int:
        """Columns of texts or numbers that memory is planned for; of a longer list it never holds more at a time."""
        lists = (len(spec.columns) + min(spec.width, TYPICAL) for spec in self.lists.values())
        return len(self.texts) - len(self.lists) + len(self.numbers) + sum(lists) + len(self.times)

    def dictionaries(self) -> dict[str, Dictionary]:
        """An empty dictionary for each entry of `texts`."""
        return {name: Dictionary(spec.column, meaning(spec)) for name, spec in self.texts.items()}

    def chunks(self, frame: pl.LazyFrame, extra: Mapping[str, pl.Expr], rows: int = CHUNK) -> Iterator[Chunk]:
        """The frame's rows in order, so many at a time."""
        schema = frame.collect_schema()
        read = (column for spec in (*self.fields, *self.texts.values()) for column in spec.reads)
        require(schema, (*read, *(column for column, _ in self.times)))
        texts, numbers = self._texts(schema), self._numbers(schema)
        plan = frame.select(**extra, **texts, **numbers)
        for batch in plan.collect_batches(chunk_size=rows, optimizations=STREAMING):
            values = batch.select(list(numbers)).to_numpy() if numbers else np.empty((len(batch), 0))
            yield Chunk(batch.select(list(texts)), values.T, batch.select(list(extra)))

    def codes(
        self, dictionaries: Mapping[str, Dictionary], texts: pl.DataFrame
    ) -> tuple[dict[str, Codes], dict[str, LeftOut]]:
        """The codes uint32 of each column of `texts`, (n,) or ragged; and what is left out of those with lists."""
        columns, left_out = {}, {}
        texts = texts.rechunk()  # polars gives it as it was parsed, in a dozen pieces
        hashes = hashes_of(texts[:, [spec.kind != "multi" for spec in self.texts.values()]])
        for (name, spec), column in zip(self.texts.items(), texts.get_columns(), strict=True):
            if spec.kind == "multi":
                columns[name], *counts = coded(spec, dictionaries[name], column)
                left_out[name] = LeftOut(*counts)
            else:
                columns[name] = dictionaries[name].code(column, next(hashes))
        return columns, left_out

    def count(self, dictionaries: Mapping[str, Dictionary], split: int, codes: Mapping[str, Codes]) -> None:
        """Count the codes of rows of one split; of code 0 of a multi-valued field the rows without any value."""
        for name, column in codes.items():
            dictionaries[name].count(split, values_of(column))
            if isinstance(column, Ragged):
                dictionaries[name].count_missing(split, int((column.lengths == 0).sum()))

    def see(self, dictionaries: Mapping[str, Dictionary], codes: Mapping[str, Codes]) -> None:
        """Take note of the codes of rows of no split."""
        for name, column in codes.items():
            dictionaries[name].see(values_of(column))

    def lines(self, numbers: np.ndarray) -> tuple[dict[str, np.ndarray], dict[Time, np.ndarray]]:
        """What the lines of a chunk's numbers (numbers + times, n) are: those of the fields, and the times."""
        count = len(self.numbers)
        named = dict(zip(self.numbers, numbers[:count], strict=True))
        return named, dict(zip(self.times, numbers[count:], strict=True))

    def _texts(self, schema: pl.Schema) -> dict[str, pl.Expr]:
        return {
            f"text {i}": cells(spec, schema) if spec.kind == "multi" else values(spec, schema)
            for i, spec in enumerate(self.texts.values())
        }

    def _numbers(self, schema: pl.Schema) -> dict[str, pl.Expr]:
        told = [values(spec, schema) for spec in self.numbers.values()]
        times = [instant(name, schema[name], unit) for name, unit in self.times]
        return {f"number {i}": number.fill_null(float("nan")) for i, number in enumerate((*told, *times))}


def _read(specs: tuple[Spec, ...]) -> tuple[FieldSpec, ...]:
    return tuple(dict.fromkeys(read for spec in specs for read in spec.sources(specs)))


def require(schema: pl.Schema, columns: Iterable[str]) -> None:
    """UserError for a column that the table lacks."""
    for column in columns:
        if column not in schema:
            names = [name for name in schema if not name.startswith(OWN)]
            raise UserError(f"no column '{column}'. {nearest(column, names)}{listing(names)}")
