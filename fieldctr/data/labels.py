"""What makes a row a click: a rule on one raw column."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from fieldctr.config import checked
from fieldctr.data.columns import OWN, column
from fieldctr.data.fields.spelling import meant_texts, number, spelled, value_texts
from fieldctr.data.table import LABEL
from fieldctr.errors import UserError, listing, nearest

KEYS = ("column", "positive", "above")
SHOWN = 10  # values of a column in a message


def shown(rule: Mapping[str, Any], frame: pl.LazyFrame) -> str:
    """A label rule beside the values of its column and how often they occur. Reads the column once more."""
    name = str(rule.get("column"))
    texts = frame.select(spelled(column(name), frame.collect_schema()[name]).alias("value"))
    counts = texts.group_by("value").len().sort(["len", "value"], descending=[True, False]).collect()
    some = [f"{'blank' if value is None else repr(value)} {rows:,}" for value, rows in counts.head(SHOWN).rows()]
    more = f", and {len(counts) - SHOWN:,} more values" if len(counts) > SHOWN else ""
    spelt = ", ".join(f"{key}: {value}" for key, value in rule.items())
    return f"The rule is label: {{{spelt}}}; column '{name}' holds (value, rows) {', '.join(some)}{more}."


def with_label(frame: pl.LazyFrame, rule: Mapping[str, Any]) -> pl.LazyFrame:
    """The frame with LABEL: the rule's column as 0 and 1, or whether it is `positive` or `above` a number.

    A number that is neither 0 nor 1 becomes a label that is refused where labels are counted; polars raises for a text.
    """
    schema = {name: dtype for name, dtype in frame.collect_schema().items() if not name.startswith(OWN)}
    for key in rule:
        if key not in KEYS:
            raise UserError(f"no key 'label.{key}'. {nearest(key, KEYS)}All: {', '.join(KEYS)}")
    name = str(rule.get("column"))
    if name not in schema:
        raise UserError(f"label.column={name}: no such column. {nearest(name, schema)}{listing(schema)}")
    if rule.get("positive") is not None and rule.get("above") is not None:
        raise UserError("label has positive and above: expected one of them")
    return frame.with_columns(_label(column(name), schema[name], rule).alias(LABEL))


def _label(raw: pl.Expr, dtype: pl.DataType, rule: Mapping[str, Any]) -> pl.Expr:
    if rule.get("positive") is not None:
        return value_texts(raw, dtype).is_in(meant_texts(rule["positive"], "label.positive")).cast(pl.Int8)
    if rule.get("above") is not None:
        return (number(raw, dtype) > checked(rule["above"], float, "label.above")).cast(pl.Int8)
    text = value_texts(raw, dtype)
    known = pl.when(text.is_in(["1", "true"])).then(1.0).when(text.is_in(["0", "false"])).then(0.0)
    return known.otherwise(number(raw, dtype))  # raises for another text, and so its line is named
