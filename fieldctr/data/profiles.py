"""Tables with one row for each user or item, joined to the samples so that no sample is lost or doubled."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import polars as pl


class Joined(NamedTuple):
    """The samples with the columns of their profiles, and for `Table.counts` the profiles left aside."""

    frame: pl.LazyFrame
    counts: dict[str, pl.LazyFrame]


def with_profiles(frame: pl.LazyFrame, profiles: Mapping[str, tuple[Path, pl.LazyFrame]]) -> Joined:
    """Left joins with `profiles`: by key column, their file and its rows.

    Of several rows with one key the first counts; a sample without a profile keeps its place, with missing values.
    The profiles are held in memory.
    """
    counts = {}
    for key, (path, table) in profiles.items():
        first = table.unique(key, keep="first", maintain_order=True)
        frame = frame.join(first, on=key, how="left", maintain_order="left")
        counts[f"{path.name}: rows after the first of their {key}"] = repeats(table, key)
    return Joined(frame, counts)


def repeats(table: pl.LazyFrame, key: str) -> pl.LazyFrame:
    """One number: how many rows share their key with another, all but one for each key."""
    return table.select(pl.len() - pl.col(key).n_unique())
