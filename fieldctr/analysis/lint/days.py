"""Click rates by day, from the raw table: a prepared one keeps no moments."""

import math
from collections.abc import Iterator

import numpy as np
import polars as pl

from fieldctr.analysis.lint.findings import SIGMAS, Finding
from fieldctr.data.columns import column as raw_column
from fieldctr.data.fields.spelling import number
from fieldctr.data.fields.times import moment
from fieldctr.data.shards.reader import require
from fieldctr.data.table import DROP, LABEL

FAR = 1.0  # logits between a day's click rate and the median day's
SHOWN = 3  # days named in a finding


def click_rates_by_day(frame: pl.LazyFrame, column: str, unit: str, weight: str | None = None) -> pl.DataFrame:
    """Day (UTC), rows and clicks of the rows that preparation keeps; `unit` as of a datetime field.

    With a column of sample weights: rows with a weight, and as many clicks as make their weighted click rate.
    """
    schema = frame.collect_schema()
    require(schema, [column, LABEL, *([weight] if weight else [])])
    kept = frame.filter(pl.col(DROP).is_null()) if DROP in schema else frame
    day = moment(column, schema[column], unit).dt.date()
    label = number(pl.col(LABEL), schema[LABEL])
    each = number(raw_column(weight), schema[weight]) if weight else pl.lit(1.0)
    known = kept.select(day=day, label=label, weight=each).filter(pl.col("weight") > 0)
    clicks = pl.len() * (pl.col("label") * pl.col("weight")).sum() / pl.col("weight").sum()
    rates = known.group_by("day").agg(rows=pl.len(), clicks=clicks if weight else pl.col("label").sum())
    return rates.drop_nulls("day").sort("day").collect(engine="streaming")


def odd_days(days: pl.DataFrame, column: str) -> Iterator[Finding]:
    """Days whose click rate is far from that of the median day."""
    if not len(days):  # a column without any moment
        return
    rows, clicks = days["rows"].to_numpy(), days["clicks"].to_numpy()
    logit = np.log((clicks + 0.5) / (rows - clicks + 0.5))
    large = rows >= rows.mean() / 2
    usual = float(np.median(logit[large]))
    spread = 1.4826 * float(np.median(np.abs(logit[large] - usual)))  # sd between usual days: large where users are few
    rate = 1 / (1 + math.exp(-usual))
    sigmas = np.abs(clicks - rows * rate) / np.sqrt(rows * rate * (1 - rate))
    odd = np.flatnonzero((np.abs(logit - usual) > max(FAR, SIGMAS * spread)) & (sigmas > SIGMAS))
    if len(odd):
        some = ", ".join(f"{days['day'][i]} {clicks[i] / rows[i]:.1%} of {rows[i]:,}" for i in odd.tolist()[:SHOWN])
        text = f"{len(odd)} of {len(days)} days have a click rate far from the usual {rate:.1%}: {some}"
        text += ", ..." if len(odd) > SHOWN else ""
        broken = bool(np.isin(clicks[odd] / rows[odd], (0, 1)).any())
        cure = "Look how the label was logged on these days; leave them out if it was not"
        yield Finding("error" if broken else "warning", "odd_days", column, text, cure, len(odd) / len(days))


def spell_days(days: pl.DataFrame, column: str) -> str:
    """One line: the lowest, the middle and the highest of the days with at least half of the mean day's rows."""
    if not len(days):
        return f"click rate by day ({column}): no row says when it was"
    large = days.filter(pl.col("rows") * 2 >= pl.col("rows").mean())
    rates = large.with_columns(rate=pl.col("clicks") / pl.col("rows")).sort("rate")
    (low, middle, high) = (rates.row(i, named=True) for i in (0, len(rates) // 2, -1))
    return (
        f"click rate by day ({column}, UTC): {len(days)} days, {low['rate']:.1%} ({low['day']}) to "
        f"{high['rate']:.1%} ({high['day']}), median {middle['rate']:.1%}"
    )
