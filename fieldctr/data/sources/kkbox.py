"""KKBox, WSDM Cup 2018, in the split of RecZoo: listenings to a song, and whether the user came back to it in a month.

Source: https://github.com/reczoo/Datasets/tree/main/KKBox; the two derived columns as in BARS' records of KKBox_x1.
"""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from fieldctr.data.sources import tidy
from fieldctr.data.spelling import number
from fieldctr.data.table import Table

AGES = (1, 95)  # others, such as 0 and 1051, mean that the user gave none


def read(raw_dir: Path, *, files: Mapping[str, str], origin: str) -> Table:
    """The columns of train, valid and test.csv, with isrc cut to its country and bd to decades of age, 1 to 7.

    `files` by split and `origin` as in the source tidy.
    """
    table = tidy.read(
        raw_dir,
        files=files,
        origin=origin,
        separator=",",
        null_values=[],
        label={"column": "label"},
        split={"by": "file"},
    )
    return table._replace(frame=table.frame.with_columns(isrc=pl.col("isrc").str.head(2), bd=_decade("bd")))


def _decade(column: str) -> pl.Expr:
    """1 up to 10 years, 2 up to 20, ..., 7 above 60; null for an age that cannot be one."""
    age = number(pl.col(column), pl.String())
    decade = (age / 10).ceil().clip(upper_bound=7).cast(pl.Int8)
    return pl.when(age.is_between(*AGES)).then(decade)
