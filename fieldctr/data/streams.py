"""Lazy frames from batches that Python makes, for what polars does not read by itself."""

from collections.abc import Callable, Iterator

import polars as pl
from polars.io.plugins import register_io_source

Batches = Callable[[list[str] | None], Iterator[pl.DataFrame]]  # the columns that are wanted; None: all


def streamed(schema: pl.Schema, batches: Batches, row: str | None = None) -> pl.LazyFrame:
    """What `batches` gives, held one at a time. `row` names one more column, the last, for the rows' numbers."""
    whole = pl.Schema({**schema, **({row: pl.UInt32} if row else {})})

    def source(
        columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, _: int | None
    ) -> Iterator[pl.DataFrame]:
        wanted, first = columns if columns is not None else list(whole), 0
        for batch in batches([name for name in wanted if name != row]):
            some = batch if rows is None else batch.head(rows - first)
            if row in wanted:
                numbers = pl.Series(row, range(first, first + len(some)), pl.UInt32)
                some = some.with_columns(numbers)
            first += len(some)
            yield _kept(some, wanted, predicate)
            if rows is not None and first >= rows:
                return

    return register_io_source(source, schema=whole, is_pure=True)


def _kept(batch: pl.DataFrame, columns: list[str], predicate: pl.Expr | None) -> pl.DataFrame:
    chosen = batch[columns]
    return chosen if predicate is None else chosen.filter(predicate)
