"""KKBox, WSDM Cup 2018, in the split of RecZoo: listenings to a song, and whether the user came back to it in a month.

Source: https://github.com/reczoo/Datasets/tree/main/KKBox; the two derived columns as in BARS' records of KKBox_x1.
"""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from fieldctr.data.fields.spelling import number
from fieldctr.data.new_rows import NewRows, derived
from fieldctr.data.sources import tidy
from fieldctr.data.table import Table

AGES = (1, 95)  # others, such as 0 and 1051, mean that the user gave none


def read(raw_dir: Path, *, files: Mapping[str, str], origin: str, new_rows: NewRows | None = None) -> Table:
    """The columns of train, valid and test.csv; isrc_country, and bd_decade: that of the age in bd, 1 to 7.

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
        new_rows=new_rows,
    )
    country, decade = pl.col("isrc").cast(pl.String).str.head(2), _decade(table.frame)
    return table._replace(frame=derived(table.frame, isrc_country=country, bd_decade=decade))


def _decade(frame: pl.LazyFrame) -> pl.Expr:
    """1 up to 10 years, 2 up to 20, ..., 7 above 60; null for an age that cannot be one."""
    age = number(pl.col("bd"), frame.collect_schema().get("bd", pl.String()))
    decade = (age / 10).ceil().clip(upper_bound=7).cast(pl.Int8)
    return pl.when(age.is_between(*AGES)).then(decade)
