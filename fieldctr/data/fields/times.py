"""Cells as moments: numbers since 1970 in a unit, ISO texts with and without a zone, texts in a format of their own.

Moments are in UTC: what a zone or an offset says is taken off, a text without one is taken as it stands.
"""

import polars as pl

from fieldctr.data.columns import column
from fieldctr.data.fields.spelling import number, without_null_words
from fieldctr.errors import UserError

TICKS = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}  # microseconds
LATEST = 4_102_444_800e6  # 2100, in microseconds since 1970: outside, the unit is wrong
RECENT = 946_684_800e6  # 2000: from here on a unit is likely
# Date; hour and minute; second; fraction; offset.
ISO = r"^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(:\d\d(?:[.,]\d{1,9})?)?)?\s*(Z|UTC|[+-]\d\d(?::?\d\d)?)?$"


def instant(name: str, dtype: pl.DataType, unit: str) -> pl.Expr:
    """Column as Float64 microseconds, null where missing; numbers need not be since 1970 to be ordered."""
    if unit in TICKS and not dtype.is_temporal():
        return number(column(name), dtype) * TICKS[unit]
    return moment(name, dtype, unit).dt.epoch("us").cast(pl.Float64)


def moment(name: str, dtype: pl.DataType, unit: str) -> pl.Expr:
    """Column as a Datetime in UTC; `unit`: s | ms | us | ns since 1970, iso, or a format with %.

    UserError for a number that is no time between 1970 and 2100 in the unit; polars raises for a text that is none.
    """
    if dtype.is_temporal():
        return column(name).cast(pl.Datetime("us"))
    if unit in TICKS:
        return _since_1970(name, dtype, unit).cast(pl.Int64).cast(pl.Datetime("us"))
    text = without_null_words(column(name).cast(pl.String).str.strip_chars())
    text = pl.when(text != "").then(text)
    if unit == "iso":
        return _iso(text)
    if "%" in unit:
        return _formatted(text, unit)
    units = " | ".join(TICKS)
    raise UserError(f"unit={unit} of column '{name}' is not allowed: expected {units} | iso | a format with %")


def _since_1970(name: str, dtype: pl.DataType, unit: str) -> pl.Expr:
    """Column as Float64 microseconds since 1970; UserError for a number outside 1970 to 2100."""

    def check(moments: pl.Series) -> pl.Series:
        strange = moments.filter((moments < 0) | (moments > LATEST))
        if len(strange):
            raw = strange[0] / TICKS[unit]
            others = [other for other, ticks in TICKS.items() if other != unit and RECENT <= raw * ticks <= LATEST]
            cure = f"It is one in {others[0]}: set unit: {others[0]}" if others else "Leave such rows out"
            raise UserError(f"column '{name}': {raw:.15g} is no time between 1970 and 2100 in unit {unit}. {cure}.")
        return moments

    since = number(column(name), dtype) * TICKS[unit]
    return since.map_batches(check, return_dtype=pl.Float64, is_elementwise=True)


def _iso(text: pl.Expr) -> pl.Expr:
    parts = text.str.extract_groups(ISO).struct
    clock = parts["2"].fill_null("00:00") + parts["3"].fill_null(":00").str.replace(",", ".", literal=True)
    whole = pl.when(parts["1"].is_null()).then(text).otherwise(parts["1"] + "T" + clock)  # what is none fails as it is
    zone = parts["4"].str.replace(":", "", literal=True)
    minutes = zone.str.slice(1, 2).cast(pl.Int64, strict=False) * 60
    minutes += zone.str.slice(3, 2).cast(pl.Int64, strict=False).fill_null(0)
    ahead = pl.when(zone.str.starts_with("-")).then(-minutes).otherwise(minutes).fill_null(0)
    return whole.str.strptime(pl.Datetime("us"), "%Y-%m-%dT%H:%M:%S%.f") - pl.duration(minutes=ahead)


def _formatted(text: pl.Expr, unit: str) -> pl.Expr:
    if "%H" in unit and "%M" not in unit:  # polars reads no hour without its minutes
        text, unit = text + " 00", f"{unit} %M"
    if "%z" in unit or "%:z" in unit:
        return text.str.to_datetime(unit, time_unit="us", time_zone="UTC").dt.replace_time_zone(None)
    return text.str.strptime(pl.Datetime("us"), unit)
