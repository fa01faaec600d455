"""Tables with one row for each user or item, joined to the samples so that no sample is lost or doubled."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import polars as pl

from fieldctr.data.columns import OWN, column
from fieldctr.data.fields.spelling import value_texts
from fieldctr.errors import UserError, listing, nearest


class Joined(NamedTuple):
    """The samples with the columns of their side tables, and for `Table.counts` what was left aside."""

    frame: pl.LazyFrame
    counts: dict[str, pl.LazyFrame]


class SideTable(NamedTuple):
    """A table with one row for each user or item, or for each pair of them."""

    name: str  # as counts and messages call it
    rows: pl.LazyFrame
    on: Mapping[str, str]  # columns of the samples, and of the table, that must agree


def join_by_text(frame: pl.LazyFrame, tables: Mapping[str, tuple[Path, pl.LazyFrame]]) -> Joined:
    """Left joins with side tables on columns of text: by key column, their file and its rows.

    Of several rows with one key the first counts; a sample that finds none keeps its place, with missing values. A
    blank key joins nothing. The side tables are held in memory.
    """
    counts = {}
    for key, (path, table) in tables.items():
        first = table.filter(pl.col(key) != "").unique(key, keep="first", maintain_order=True)
        frame = frame.join(first, on=key, how="left", maintain_order="left")
        counts[f"{path.name}: rows after the first of their {key}"] = repeats(table, key)
    return Joined(frame, counts)


def with_side_table(frame: pl.LazyFrame, side: SideTable) -> Joined:
    """A left join with a side table on columns of any type, compared as texts: 1, 1.0 and "1" are one key.

    The columns of the key stay as the samples have them; any other that both have is refused. Counts the table's rows
    too, and the samples that find none.
    """
    _check(frame, side)
    keys = [f"{OWN}key {number}" for number in range(len(side.on))]
    table = side.rows.with_columns(_texts(side.rows, side.on.values()))
    rest = [name for name in side.rows.collect_schema() if name not in side.on.values()]
    keyed = table.select(*map(column, rest), *keys).drop_nulls(keys)
    first = keyed.unique(keys, keep="first", maintain_order=True)
    samples = frame.with_columns(_texts(frame, side.on))
    joined = samples.join(first, on=keys, how="left", maintain_order="left").drop(keys)
    own, theirs = ", ".join(side.on), ", ".join(side.on.values())
    lost = samples.select(keys).drop_nulls().join(first, on=keys, how="anti")
    return Joined(
        joined,
        {
            f"{side.name}: rows": side.rows.select(pl.len()),
            f"{side.name}: rows without {theirs}": table.select(pl.any_horizontal(pl.col(keys).is_null()).sum()),
            f"{side.name}: rows after the first of their {theirs}": keyed.select(pl.len() - pl.struct(keys).n_unique()),
            f"samples whose {own} is not in {side.name}": lost.select(pl.len()),
            f"samples without {own}": samples.select(pl.any_horizontal(pl.col(keys).is_null()).sum()),
        },
    )


def without(side: SideTable, names: Iterable[str]) -> SideTable | None:
    """The table without columns of these names, but for its key; None if it then adds nothing."""
    known, keys = set(names), set(side.on.values())
    kept = [name for name in side.rows.collect_schema() if name in keys or name not in known]
    return side._replace(rows=side.rows.select(*map(column, kept))) if set(kept) - keys else None


def repeats(table: pl.LazyFrame, key: str) -> pl.LazyFrame:
    """One number: how many rows share their key with another, all but one for each key."""
    return table.select(pl.len() - pl.col(key).n_unique())


def _texts(frame: pl.LazyFrame, names: Iterable[str]) -> list[pl.Expr]:
    """The cells of a key as texts, null where they say nothing."""
    schema = frame.collect_schema()
    return [value_texts(column(name), schema[name]).alias(f"{OWN}key {i}") for i, name in enumerate(names)]


def _check(frame: pl.LazyFrame, side: SideTable) -> None:
    """UserError for a key that is no column, or a list, and for a column that both have."""
    ours, theirs = frame.collect_schema(), side.rows.collect_schema()
    for schema, names, what in ((ours, side.on, "the samples"), (theirs, side.on.values(), side.name)):
        for name in names:
            if name not in schema:
                shown = [known for known in schema if not known.startswith(OWN)]
                raise UserError(f"on: no column '{name}' in {what}. {nearest(name, shown)}{listing(shown)}")
            if schema[name].is_nested():
                raise UserError(f"on: column '{name}' in {what} holds lists: expected single values")
    both = [name for name in theirs if name in ours and name not in side.on.values()]
    if both:
        raise UserError(f"the samples have a column '{both[0]}' too. Rename it in {side.name}, or leave it out.")
