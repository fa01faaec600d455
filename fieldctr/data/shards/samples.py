"""Which rows of a chunk are samples, of which split and with which label; what a label, split or weight must be."""

import numpy as np
import polars as pl

from fieldctr.data.columns import column
from fieldctr.data.fields.spelling import LARGEST, number
from fieldctr.data.shards.reader import require
from fieldctr.data.shards.row_counts import RowCounts
from fieldctr.data.table import DROP, EVENTS, LABEL, PCTR, SPLIT, SPLITS
from fieldctr.errors import LabelError, UserError

NO_SPLIT = -1
SHOWN = 10  # values in a message


def row_columns(schema: pl.Schema, group: str | None, weight: str | None) -> dict[str, pl.Expr]:
    """What pass one reads besides the fields and the groups, of which it wants the column too."""
    if missing := {LABEL, SPLIT} - set(schema):
        raise UserError(f"the source gives no {' and no '.join(sorted(missing))}: see fieldctr.data.table.Table.named")
    require(schema, [*([group] if group else []), *([weight] if weight else [])])
    # Not replace_strict: polars 2.1 collects the whole table for it.
    place = pl.col(SPLIT).cast(pl.String).cast(pl.Enum((*SPLITS, EVENTS)), strict=False)
    split = place.to_physical().cast(pl.Int8).fill_null(NO_SPLIT)
    extra = {"label": number(pl.col(LABEL), schema[LABEL]).fill_null(float("nan")), "split": split}
    if weight:
        extra["weight"] = number(column(weight), schema[weight]).fill_null(float("nan"))
    return extra | {name: pl.col(own) for name, own in (("drop", DROP), ("pctr", PCTR)) if own in schema}


def rows_of_splits(extra: pl.DataFrame, frame: pl.LazyFrame, row_counts: RowCounts) -> list[np.ndarray]:
    """Per split, and last for EVENTS, which rows of the chunk it keeps; the reasons for the others are counted."""
    kept = np.ones(len(extra), bool)
    if "drop" in extra.columns:
        kept = extra["drop"].is_null().to_numpy()
        row_counts.dropped.update(extra["drop"].drop_nulls().to_list())
    split, label = extra["split"].to_numpy(), extra["label"].to_numpy()
    if (split[kept] == NO_SPLIT).any():
        found = frame.select(pl.col(SPLIT).unique().sort()).collect().to_series().to_list()
        named = ", ".join("a blank" if name is None else repr(name) for name in found[:SHOWN])
        raise UserError(f"the split rule gives {named}: expected only {', '.join(SPLITS)}. Name others in split.values")
    strange = np.unique(label[kept & (split < len(SPLITS)) & (label != 0) & (label != 1)])
    if len(strange):
        found = ", ".join("a blank" if np.isnan(y) else f"{y:g}" for y in strange[:5])
        raise LabelError(f"label is not binary: found {found}, expected 0 and 1. Give the source a label rule.")
    if "weight" in extra.columns:
        weight = extra["weight"].to_numpy()[kept & (split < len(SPLITS))]
        if len(bad := weight[~((weight >= 0) & (weight <= LARGEST))]):
            found = "a blank" if np.isnan(bad[0]) else f"{bad[0]:g}"
            raise UserError(f"the weight of a row is {found}, expected a number from 0 to {LARGEST:.3g} in every row")
    return [np.flatnonzero(kept & (split == s)) for s in range(len(SPLITS) + 1)]
