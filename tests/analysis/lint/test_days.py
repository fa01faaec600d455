"""Days, where no row says when it was."""

import polars as pl

from fieldctr.analysis.lint.days import click_rates_by_day, odd_days, spell_days
from fieldctr.data.table import Table


def test_a_column_without_any_moment_is_said() -> None:
    frame = pl.LazyFrame({"ts": ["", "", ""], "label": [0, 1, 0]})
    days = click_rates_by_day(Table.named(frame).frame, "ts", "iso")
    assert list(odd_days(days, "ts")) == []
    assert spell_days(days, "ts") == "click rate by day (ts): no row says when it was"
