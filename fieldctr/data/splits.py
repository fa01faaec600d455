"""Which split a row belongs to: rules that are pure functions of the table, so that they stream and repeat."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl

from fieldctr.config import checked
from fieldctr.data.columns import OWN, column
from fieldctr.data.fields.spelling import by_word, meant, number, value_texts
from fieldctr.data.fields.times import moment
from fieldctr.data.hashing import hashed, unit_interval, unit_interval_of_rows
from fieldctr.data.table import DROP, SPLIT
from fieldctr.errors import UserError, listing, nearest

THINNING = 0x5EED  # added to a seed, so that thinning does not repeat the draw of a random split
ROW = f"{OWN}row"  # a column that rules add which need it, or the scan
THINNED = "not in train_fraction"
FILE = f"{OWN}file"  # a column that a source adds which knows what each of its files is for
RULES: dict[str, tuple[str, ...]] = {
    "column": ("column", "values", "valid_from_train", "seed"),
    "time": ("column", "unit", "fractions", "cuts"),
    "order": ("column", "unit", "fractions"),
    "random": ("fractions", "seed"),
    "hash": ("column", "fractions", "seed"),
    "file": ("valid_from_train", "seed"),
}


def with_split(frame: pl.LazyFrame, rule: Mapping[str, Any]) -> pl.LazyFrame:
    """The frame with SPLIT. `rule` is one of

    {by: column, column, values: {raw value: split}, valid_from_train: fraction, seed}, the last three optional
    {by: time, column, fractions: [train, valid, test]} or {by: time, column, cuts: [valid from, test from]},
    with unit as in a datetime field if the column is no number
    {by: order, column, unit, fractions}: as by time, but cut at exact numbers of rows
    {by: random, fractions, seed}
    {by: hash, column, fractions, seed}: all rows of one value of the column land in one split, each blank one anywhere
    {by: file, valid_from_train, seed}: a file for each split, which the source's `files` then name
    """
    by = rule.get("by")
    if by not in RULES:
        raise UserError(f"split.by={by} is not allowed: expected {' | '.join(RULES)}")
    for key in rule.keys() - {"by"}:
        if key not in RULES[by]:
            raise UserError(f"no key 'split.{key}' for by: {by}. {nearest(key, RULES[by])}All: {', '.join(RULES[by])}")
    if by == "random":
        return by_random(frame, _fractions(rule), _need(rule, "seed"))
    if by == "file":
        return by_file(frame, rule.get("valid_from_train", 0), rule.get("seed", 0))
    name, columns = str(_need(rule, "column")), [one for one in frame.collect_schema() if not one.startswith(OWN)]
    if name not in columns:
        raise UserError(f"split.column={name}: no such column. {nearest(name, columns)}{listing(columns)}")
    if by == "hash":
        return by_hash(frame, name, _fractions(rule), _need(rule, "seed"))
    if by == "column":
        return by_column(frame, name, rule.get("values"), rule.get("valid_from_train", 0), rule.get("seed", 0))
    if "cuts" in rule:
        return by_cuts(frame, name, rule["cuts"], rule.get("unit"))
    by_fractions = by_order if by == "order" else by_time
    return by_fractions(frame, name, _fractions(rule), rule.get("unit"))


def by_column(
    frame: pl.LazyFrame, name: str, values: Mapping[Any, str] | None, valid: float, seed: int
) -> pl.LazyFrame:
    """The column's values name the split, through `values` where given; a fraction `valid` of train becomes valid."""
    text = value_texts(column(name), frame.collect_schema()[name])
    split = text
    for raw, part in (values or {}).items():  # not Expr.replace: polars 2.1 collects the whole table for it
        if raw is None:
            raise UserError('split.values: an unquoted null is no text. Quote it: "null"')
        split = pl.when(text.is_in(meant(raw))).then(pl.lit(part)).otherwise(split)
    if not valid:
        return frame.with_columns(split.alias(SPLIT))
    moved = (split == "train") & (_unit_interval(pl.col(ROW), seed) < valid)
    chosen = pl.when(moved).then(pl.lit("valid")).otherwise(split)
    return _numbered(frame).with_columns(chosen.alias(SPLIT)).drop(ROW)


def by_file(frame: pl.LazyFrame, valid: float, seed: int) -> pl.LazyFrame:
    """Rows go where the source says of their file; a fraction `valid` of train becomes valid."""
    if FILE not in frame.collect_schema():
        raise UserError("split.by=file needs source.files as {train: FILE, valid: FILE, test: FILE}")
    return by_column(frame, FILE, None, valid, seed).drop(FILE)


def by_random(frame: pl.LazyFrame, fractions: Sequence[float], seed: int) -> pl.LazyFrame:
    """Rows go by a hash of their number."""
    split = _cut(_unit_interval(pl.col(ROW), seed), *_inner(fractions))
    return _numbered(frame).with_columns(split.alias(SPLIT)).drop(ROW)


def by_hash(frame: pl.LazyFrame, name: str, fractions: Sequence[float], seed: int) -> pl.LazyFrame:
    """Rows go by a hash of the column's text; a blank is nobody's, and its row goes by its number."""
    text = value_texts(column(name), frame.collect_schema()[name])
    keys = by_word(lambda known: unit_interval(hashed(known, seed)).tolist(), pl.Float64())
    where = text.map_batches(keys, return_dtype=pl.Float64, is_elementwise=True)
    split = _cut(where.fill_null(_unit_interval(pl.col(ROW), seed)), *_inner(fractions))
    return _numbered(frame).with_columns(split.alias(SPLIT)).drop(ROW)


def by_time(frame: pl.LazyFrame, name: str, fractions: Sequence[float], unit: str | None) -> pl.LazyFrame:
    """Rows go by quantiles of the time, for which the column is read once more. Rows of one instant stay together."""
    time = _time(frame, name, unit)
    names = (f"{ROW} valid", f"{ROW} test")
    cuts = frame.select(**{n: time.quantile(q, "higher") for n, q in zip(names, _inner(fractions), strict=True)})
    joined = frame.join(cuts, how="cross", maintain_order="left")
    return joined.with_columns(_cut(time, *map(pl.col, names)).alias(SPLIT)).drop(names)


def by_order(frame: pl.LazyFrame, name: str, fractions: Sequence[float], unit: str | None) -> pl.LazyFrame:
    """The first int(f n) rows in the order of time, then the next; ties in the order of the file.

    n leaves out rows with a reason in DROP, which get a split all the same. The column is read once more and sorted
    in memory: 12 bytes per row, and as much again while it sorts. Source: the cut of LLaCTR's released scripts.
    """
    numbered, time = frame.with_row_index(ROW), _time(frame, name, unit)
    kept = numbered.filter(pl.col(DROP).is_null()) if DROP in frame.collect_schema() else numbered
    train, valid = ((pl.len() * fraction).cast(pl.Int64) for fraction in fractions[:2])
    firsts = {f"{ROW} valid": train, f"{ROW} test": train + valid}  # positions of the first rows
    parts = {f"{name} {part}": pl.col(part).gather(at) for name, at in firsts.items() for part in ("time", "row")}
    cuts = kept.select(time=time, row=ROW).sort("time", "row").select(**parts)

    def before(name: str) -> pl.Expr:
        tie = (time == pl.col(f"{name} time")) & (pl.col(ROW) < pl.col(f"{name} row"))
        return (time < pl.col(f"{name} time")) | tie

    early, middle = map(before, firsts)
    late = pl.when(middle).then(pl.lit("valid")).when(time.is_not_null()).then(pl.lit("test"))
    joined = numbered.join(cuts, how="cross", maintain_order="left")
    split = pl.when(early).then(pl.lit("train")).otherwise(late)
    return joined.with_columns(split.alias(SPLIT)).drop(ROW, *parts)


def by_cuts(frame: pl.LazyFrame, name: str, cuts: Sequence[float | str], unit: str | None) -> pl.LazyFrame:
    """Valid from the first cut on, test from the second; cuts are numbers, or ISO texts (of UTC unless they say)."""
    if len(cuts) != 2:
        raise UserError(f"split.cuts={list(cuts)} is not allowed: expected [valid from, test from]")
    numbers = unit is None and not frame.collect_schema()[name].is_temporal()
    if numbers and any(isinstance(cut, str) for cut in cuts):
        raise UserError(f"split.cuts={list(cuts)} are dates: say with split.unit what the numbers in '{name}' are")
    return frame.with_columns(_cut(_time(frame, name, unit), *map(_instant, cuts)).alias(SPLIT))


def thinned(frame: pl.LazyFrame, fraction: float, seed: int) -> pl.LazyFrame:
    """About a `fraction` of the train rows, whatever rule made the split; the others get a reason in DROP.

    By a hash of the row's number: with one seed, the rows of a smaller fraction are among those of a larger one.
    """
    left_out = (pl.col(SPLIT) == "train") & (_unit_interval(pl.col(ROW), seed + THINNING) >= fraction)
    before = pl.col(DROP) if DROP in frame.collect_schema() else pl.lit(None, pl.String)
    drop = before.fill_null(pl.when(left_out).then(pl.lit(THINNED)))
    return frame.with_row_index(ROW).with_columns(drop.alias(DROP)).drop(ROW)


def needs_rows(rule: Mapping[str, Any]) -> bool:
    """Whether the rule wants the rows' numbers, which a scan counts for less than they cost behind it."""
    return rule.get("by") in ("random", "hash") or bool(rule.get("valid_from_train"))


def _numbered(frame: pl.LazyFrame) -> pl.LazyFrame:
    return frame if ROW in frame.collect_schema() else frame.with_row_index(ROW)


def _time(frame: pl.LazyFrame, name: str, unit: str | None) -> pl.Expr:
    dtype = frame.collect_schema()[name]
    if unit is None and not dtype.is_temporal():
        return number(column(name), dtype)
    return moment(name, dtype, unit or "us").dt.epoch("us").cast(pl.Float64)


def _instant(cut: float | str) -> float:
    if not isinstance(cut, str):
        return float(cut)
    try:
        instant = datetime.fromisoformat(cut)
        return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp() * 1e6
    except ValueError as error:
        raise UserError(f"split.cuts: {cut} is neither a number nor a date such as 2024-05-31") from error


def _cut(position: pl.Expr, first: float | pl.Expr, second: float | pl.Expr) -> pl.Expr:
    """train below `first`, valid below `second`, else test; null stays null."""
    late = pl.when(position < second).then(pl.lit("valid")).when(position.is_not_null()).then(pl.lit("test"))
    return pl.when(position < first).then(pl.lit("train")).otherwise(late)


def _unit_interval(row: pl.Expr, seed: int) -> pl.Expr:
    return row.map_batches(
        lambda rows: pl.Series(unit_interval_of_rows(rows.to_numpy(), seed)),
        return_dtype=pl.Float64,
        is_elementwise=True,
    )


def _fractions(rule: Mapping[str, Any]) -> list[float]:
    fractions = checked(_need(rule, "fractions"), list[float], "split.fractions")
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-9:
        raise UserError(f"split.fractions={list(fractions)} is not allowed: expected three above 0 that sum to 1")
    return list(fractions)


def _inner(fractions: Sequence[float]) -> tuple[float, float]:
    return fractions[0], fractions[0] + fractions[1]


def _need(rule: Mapping[str, Any], key: str) -> Any:
    if rule.get(key) is None:
        raise UserError(f"key 'split.{key}' is missing: by: {rule['by']} needs it")
    return rule[key]
