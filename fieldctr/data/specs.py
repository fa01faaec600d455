"""How a field comes about: from a raw column (FieldSpec), from what train says about others (StatisticSpec), or from
what a user did before (HistorySpec).

All are parsed from the dataset's YAML node `fields`.

log_square: Juan et al., "Field-aware Factorization Machines for CTR Prediction", RecSys 2016 (the authors' winning
Criteo recipe), as used by most published Criteo preparations.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, get_args, get_type_hints

import polars as pl
from polars.datatypes import DataTypeClass

from fieldctr.config import Between, Positive, Weight, checked, nearest
from fieldctr.data.hashing import hashed
from fieldctr.errors import UserError

Kind = Literal["categorical", "multi", "quantile", "log_square", "value", "datetime", "cross"]
StatisticKind = Literal["target_mean", "count"]
HistoryKind = Literal["history"]
Part = Literal["minute", "hour", "weekday", "is_weekend", "day", "month", "year"]

SHARED = ("kind", "text", "synonym")
KEYS: dict[str, tuple[str, ...]] = {  # what a kind accepts besides SHARED and, if it is read from one, column
    "categorical": ("min_count", "missing", "num_buckets", "shares"),
    "multi": ("min_count", "separator", "max_length", "num_buckets", "shares", "keep", "columns", "padding"),
    "quantile": ("bins",),
    "log_square": ("min_count", "missing"),
    "value": ("scale",),
    "datetime": ("min_count", "part", "unit"),
    "cross": ("min_count", "columns", "num_buckets"),
    "target_mean": ("of", "smoothing", "folds", "seed", "time", "unit", "bins"),
    "count": ("of", "folds", "seed", "time", "unit", "bins"),
    "history": ("of", "by", "time", "unit", "clicked", "max_length"),
}
STATISTICS = get_args(StatisticKind)
DERIVED = (*STATISTICS, *get_args(HistoryKind))  # read from no column of their own
AND = " & "  # between the parts of a cross
MAX_FOLDS = 255  # see fieldctr.data.counts
MAX_BUCKETS = 2**31 - 2  # ids are int32
TICKS = {"s": 1e6, "ms": 1e3, "us": 1.0}  # microseconds
LATER: dict[str, object] = {"keep": "first", "padding": ()}  # keys that say nothing, and are left out of records
WHOLE = r"^(-?\d+)\.0+$"  # a whole number that passed through floats


@dataclass(frozen=True)
class FieldSpec:
    """One field: where it is read and how it is encoded. `min_count` is the frequency a value needs in train."""

    name: str
    column: str
    kind: Kind = "categorical"
    min_count: Positive = 1
    missing: str = ""  # categorical, log_square: one encoded value, spelled so, that means missing, such as -1
    separator: str = ","  # multi; a list column needs none
    max_length: Positive = 8  # multi: values kept per row
    shares: str = ""  # this categorical field's vocabulary and table. multi: a history of its values; repeats stay
    bins: Positive = 16  # quantile
    scale: Literal["standard", "none"] = "standard"  # value
    part: Part = "hour"  # datetime; weekday counts from Monday = 1
    unit: str = "s"  # datetime: s | ms | us since 1970 in UTC, iso, or a format such as %d/%m/%Y
    text: str = ""  # what a language model reads
    synonym: str = ""  # the same in other words: to see whether a gain depends on the wording
    columns: tuple[str, ...] = ()  # cross, multi: a value of each makes one value, or a list; `column` is the first
    bucket: int = 0  # categorical, when schema=split: only values of this hash bucket, the others are missing
    buckets: int = 1
    num_buckets: Annotated[int, Between(1, MAX_BUCKETS)] | None = None  # id = 1 + hash % num_buckets; no vocabulary
    keep: Literal["first", "last"] = "first"  # multi: which values of a longer list; last where `shares` is set
    padding: tuple[str, ...] = ()  # multi: values, spelled so, that fill up lists and mean nothing

    @property
    def reads(self) -> tuple[str, ...]:
        """The raw columns that it needs."""
        return self.columns or (self.column,)

    @property
    def width(self) -> int:
        """Its id columns."""
        return self.max_length if self.kind == "multi" else 1

    @property
    def numeric(self) -> bool:
        """Whether the raw value itself, not only a code for it, is needed to encode."""
        return self.kind in ("quantile", "value")


@dataclass(frozen=True)
class StatisticSpec:
    """A field that says how often train rows like this one were seen, or clicked; see fieldctr.data.statistics."""

    name: str
    kind: StatisticKind
    of: tuple[str, ...]  # fields, or raw columns where no field is called so; several are crossed
    smoothing: Weight = 20.0  # target_mean: rows at the global rate that are added to those of each value
    folds: Annotated[int, Between(2, MAX_FOLDS)] = 5
    seed: Annotated[int, Between(0)] = 1  # of the folds
    time: str | None = None  # column; cuts the folds by time, and a train row sees the earlier ones only
    unit: str = "s"  # of time, as in a datetime field
    bins: Positive | None = None  # null: a standardised number
    text: str = ""
    synonym: str = ""

    width = 1
    numeric = True
    shares = ""
    num_buckets = None


@dataclass(frozen=True)
class HistorySpec:
    """A field that says what the user did before, from earlier rows of the table itself; see fieldctr.data.histories.

    Where each row brings its history in a column, that is a field of kind multi with the key shares.
    """

    name: str
    of: str  # categorical field: one vocabulary, one table
    by: str  # categorical field or cross, or a raw column where no field is called so: whose history it is
    time: str  # column: only strictly earlier rows are seen
    kind: HistoryKind = "history"
    unit: str = "s"  # of time, as in a datetime field
    clicked: bool = True  # only rows with label 1; false: every row
    max_length: Positive = 20  # the latest values that a row sees
    num_buckets: int | None = None  # its owner's
    text: str = ""
    synonym: str = ""

    numeric = False

    @property
    def shares(self) -> str:
        """The field whose vocabulary and table it has."""
        return self.of

    @property
    def width(self) -> int:
        """Its id columns."""
        return self.max_length

    def user(self, specs: Sequence["Spec"]) -> FieldSpec:
        """How `by` is read: each value by itself, also where the field is hashed."""
        field = next((spec for spec in specs if isinstance(spec, FieldSpec) and spec.name == self.by), None)
        if field and field.num_buckets:
            return replace(field, name=f"{self.by} without a hash", num_buckets=None)
        return field or FieldSpec(self.by, self.by)


Spec = FieldSpec | StatisticSpec | HistorySpec


def field_specs(fields: Mapping[str, Any], default_min_count: int) -> tuple[Spec, ...]:
    """The specs of a dataset's `fields` node, those of statistics and histories last; without those that are false.

    UserError for a stray key, a wrong value, a statistic of what cannot have one and a history of what has none.
    """
    parsed = [_parse(name, node or {}, default_min_count) for name, node in fields.items() if node is not False]
    specs = sorted(parsed, key=lambda spec: (FieldSpec, StatisticSpec, HistorySpec).index(type(spec)))
    refuse_twins(tuple(specs))
    known = {spec.name: spec for spec in specs}
    for i, spec in enumerate(specs):
        if isinstance(spec, StatisticSpec):
            _refuse_sources(spec, known)
        elif isinstance(spec, HistorySpec):
            _refuse_user(spec, known)
            specs[i] = replace(spec, num_buckets=_owner(spec, known).num_buckets)
        elif spec.shares and _owner(spec, known).num_buckets != spec.num_buckets:
            where, expected = f"dataset.fields.{spec.name}.shares={spec.shares}", known[spec.shares].num_buckets
            raise UserError(f"{where}: num_buckets is {spec.num_buckets}, expected its owner's: {expected}")
    return tuple(specs)


def _parse(name: str, node: Mapping[str, Any], default_min_count: int) -> Spec:
    where = f"dataset.fields.{name}"
    if not isinstance(node, Mapping):
        raise UserError(f"{where}={node} is not allowed: expected null, false or keys such as kind, column")
    kind = checked(node.get("kind", "categorical"), Kind | StatisticKind | HistoryKind, f"{where}.kind")
    known = (*SHARED, *KEYS[kind]) if kind in (*DERIVED, "cross") else (*SHARED, "column", *KEYS[kind])
    for key in node:
        if key not in known:
            raise UserError(f"no key '{where}.{key}' for kind {kind}. {nearest(key, known)}All: {', '.join(known)}")
    plain: Spec = FieldSpec(name, column=name, min_count=default_min_count, text=name.replace("_", " "))
    if kind == "history":
        of, by, time = (checked(node.get(key), str, f"{where}.{key}") for key in ("of", "by", "time"))
        how = "seen" if node.get("clicked") is False else "clicked"
        plain = HistorySpec(name, of, by, time, text=f"{of.replace('_', ' ')} {how} before")
    if kind in STATISTICS:
        of = tuple(checked(node.get("of"), list[str], f"{where}.of"))
        subject = "click rate" if kind == "target_mean" else "number of impressions"
        plain = StatisticSpec(name, kind, of, text=f"{subject} by {' and '.join(of).replace('_', ' ')}")
    if kind == "cross":
        columns = tuple(checked(node.get("columns"), list[str], f"{where}.columns"))
        if len(columns) < 2:
            raise UserError(f"{where}.columns={list(columns)} is not allowed: expected two columns or more")
        plain = replace(plain, column=columns[0], columns=columns)
    if kind == "multi" and isinstance(plain, FieldSpec):
        plain = _listed(replace(plain, keep="last" if node.get("shares") else "first"), node, where)
    hints = get_type_hints(type(plain), include_extras=True)
    lists = [key for key in node if hints[key] == tuple[str, ...]]  # which YAML has not
    given = {key: checked(value, hints[key], f"{where}.{key}") for key, value in node.items() if key not in lists}
    if given.get("num_buckets"):
        if "min_count" in given:
            raise UserError(f"{where} has min_count and num_buckets: a hash counts no values. Drop one of them.")
        given["min_count"] = 1  # the dataset's own says nothing here
    return replace(plain, **given)


def _listed(plain: FieldSpec, node: Mapping[str, Any], where: str) -> FieldSpec:
    """With the columns, or patterns of them, and the padding that the node of a multi-valued field names."""
    columns = checked(node.get("columns", []), str | list[str], f"{where}.columns")
    padding = checked(node.get("padding", []), list[str | int | float | bool], f"{where}.padding")
    plain = replace(plain, padding=tuple(filter(None, map(_spelled_value, padding))))
    if "columns" not in node:
        return plain
    if not columns:
        raise UserError(f"{where}.columns is empty: expected columns, or a pattern such as genre_*")
    for key in ("column", "separator"):
        if key in node:
            raise UserError(f"{where} has columns and {key}: each column holds one value. Drop one of them.")
    names = (columns,) if isinstance(columns, str) else tuple(columns)
    return replace(plain, column=names[0], columns=names)


def _spelled_value(value: str | float) -> str:
    """A value of YAML as a cell that holds it is spelled."""
    cell = pl.Series("value", [value])
    return cell.to_frame().select(canonical_text(spelled(pl.col("value"), cell.dtype).str.strip_chars())).item()


def _refuse_sources(spec: StatisticSpec, fields: Mapping[str, Spec]) -> None:
    """UserError for a statistic of nothing, of one thing twice, of numbers, of statistics, of two lists."""
    where = f"dataset.fields.{spec.name}.of={list(spec.of)} is not allowed"
    if not spec.of or len(set(spec.of)) < len(spec.of):
        raise UserError(f"{where}: expected one or more fields or columns, each once")
    for name in spec.of:
        if name in fields and (fields[name].numeric or fields[name].kind in DERIVED):
            expected = "expected one of kind categorical, multi, log_square or datetime"
            raise UserError(f"{where}: '{name}' is a field of kind {fields[name].kind}, {expected}")
    if sum(fields[name].kind == "multi" for name in spec.of if name in fields) > 1:
        raise UserError(f"{where}: expected at most one field of kind multi")


def _owner(spec: FieldSpec | HistorySpec, fields: Mapping[str, Spec]) -> FieldSpec:
    """The field whose table it has; UserError where that is no categorical one with a table of its own."""
    key = "of" if isinstance(spec, HistorySpec) else "shares"
    where, owner = f"dataset.fields.{spec.name}.{key}={spec.shares}", fields.get(spec.shares)
    if owner is None:
        raise UserError(f"{where}: no such field. {nearest(spec.shares, fields)}All: {', '.join(fields)}")
    if not isinstance(owner, FieldSpec) or owner.kind != "categorical":
        raise UserError(f"{where} is not allowed: it is of kind {owner.kind}, expected a field of kind categorical")
    if owner is spec:
        raise UserError(f"{where} is not allowed: expected another field")
    if owner.shares:
        raise UserError(f"{where} is not allowed: that field has the table of another. Set {key}={owner.shares}")
    return owner


def _refuse_user(spec: HistorySpec, fields: Mapping[str, Spec]) -> None:
    """UserError for a history by what tells no users apart."""
    if spec.by in fields and fields[spec.by].kind not in ("categorical", "cross"):
        expected = "expected a field of kind categorical or cross, or a column"
        where = f"dataset.fields.{spec.name}.by={spec.by}"
        raise UserError(f"{where} is not allowed: it is of kind {fields[spec.by].kind}, {expected}")


def refuse_twins(specs: tuple[Spec, ...]) -> None:
    """UserError for two fields of one name, for one column encoded twice in the same way, and for no field at all."""
    if not specs:
        raise UserError("dataset.fields is empty: expected at least one field")
    for name, times in Counter(spec.name for spec in specs).items():
        if times > 1:
            raise UserError(f"field '{name}' is given {times} times. Names must differ.")
    seen: dict[Spec, str] = {}
    for spec in specs:
        twin = seen.setdefault(replace(spec, name="", text="", synonym=""), spec.name)
        if twin != spec.name:
            raise UserError(f"fields '{twin}' and '{spec.name}' are the same encoding of {_source(spec)}")


def _source(spec: Spec) -> str:
    if isinstance(spec, FieldSpec):
        return f"column '{spec.column}'"
    return " x ".join(spec.of) if isinstance(spec, StatisticSpec) else f"{spec.of} by {spec.by}"


def number(column: str, dtype: pl.DataType) -> pl.Expr:
    """Column as Float64, null where blank or NaN; polars raises for text that is no number."""
    return _number(pl.col(column), dtype)


def _number(raw: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype == pl.String:
        raw = raw.str.strip_chars()
        raw = pl.when(raw != "").then(raw)
    return raw.cast(pl.Float64).fill_nan(None)


def spelled(raw: pl.Expr, dtype: pl.DataType | DataTypeClass) -> pl.Expr:
    """Values as text, null or blank where missing. Whole floats lose their point here, texts per distinct value."""
    if dtype.is_float():
        whole = (raw == raw.floor()) & (raw.abs() < 2**63)
        exact = raw.cast(pl.Int64, strict=False).cast(pl.String)
        return pl.when(whole).then(exact).otherwise(raw.fill_nan(None).cast(pl.String))
    return raw.cast(pl.String)


def canonical_text(text: pl.Expr) -> pl.Expr:
    """3.0 and 3 are one value; -0 is 0."""
    return text.str.replace(WHOLE, "$1").str.replace("^-0$", "0")


def canonical_words(texts: pl.Expr) -> pl.Expr:
    """The same for many distinct texts, of which few have a point: 4x the speed."""
    return texts.map_batches(_canonical, return_dtype=pl.String, is_elementwise=True)


def _canonical(texts: pl.Series) -> pl.Series:
    rows = (texts.str.contains(".", literal=True) | (texts == "-0")).arg_true()
    if not len(rows):
        return texts
    some = texts.gather(rows).to_frame("text").select(canonical_text(pl.col("text"))).to_series()
    return texts.scatter(rows, some)


def values(spec: FieldSpec, schema: Mapping[str, pl.DataType]) -> pl.Expr:
    """The field's value per row: text, or a number (quantile, value); null where missing. For lists see data.lists."""
    for name in spec.reads:
        if isinstance(schema[name], pl.List | pl.Array | pl.Struct | pl.Binary):
            raise UserError(f"field '{spec.name}': column '{name}' holds {schema[name]}. A list needs kind: multi.")
    if spec.kind == "cross":
        return _crossed(spec, schema)
    dtype = schema[spec.column]
    if spec.kind == "categorical":
        text = _known(spec, spelled(pl.col(spec.column), dtype))
        return text if spec.buckets == 1 else _of_bucket(spec, text)
    if spec.kind == "log_square":
        column = pl.col(spec.column)
        return column if dtype == pl.String else _log_square(spec, column, dtype)  # see meaning
    return _datetime_part(spec, dtype) if spec.kind == "datetime" else number(spec.column, dtype)


def meaning(spec: FieldSpec, dtype: pl.DataType | None) -> Callable[[pl.Expr], pl.Expr]:
    """What becomes of the texts that `values` gives: computed once per distinct text, 10x the speed of once per row."""
    if spec.kind == "log_square" and dtype == pl.String:
        return lambda text: _log_square(spec, text, pl.String())
    return canonical_words


def _log_square(spec: FieldSpec, raw: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    x = _number(raw, dtype)
    return _known(spec, pl.when(x > 2).then((x.log() ** 2).floor()).otherwise(x).cast(pl.Int64).cast(pl.String))


def _known(spec: FieldSpec, text: pl.Expr) -> pl.Expr:
    return pl.when(text != spec.missing).then(text) if spec.missing else text


def _crossed(spec: FieldSpec, schema: Mapping[str, pl.DataType]) -> pl.Expr:
    texts = [canonical_text(spelled(pl.col(name), schema[name])).fill_null("") for name in spec.columns]
    return pl.when(pl.any_horizontal(text != "" for text in texts)).then(pl.concat_str(texts, separator=AND))


def _of_bucket(spec: FieldSpec, text: pl.Expr) -> pl.Expr:
    def buckets(texts: pl.Series) -> pl.Series:
        known = texts.drop_nulls().unique()
        return texts.replace_strict(
            known, (hashed(known) % spec.buckets).astype("int64"), default=None, return_dtype=pl.Int64
        )

    own = canonical_text(text).map_batches(buckets, return_dtype=pl.Int64, is_elementwise=True)
    return pl.when(own == spec.bucket).then(text)


def _datetime_part(spec: FieldSpec, dtype: pl.DataType) -> pl.Expr:
    when = moment(spec.column, dtype, spec.unit).dt
    if spec.part == "is_weekend":
        return (when.weekday() > 5).cast(pl.Int8).cast(pl.String)
    return getattr(when, spec.part)().cast(pl.String)


def instant(column: str, dtype: pl.DataType, unit: str) -> pl.Expr:
    """Column as Float64 microseconds, null where missing; numbers need not be since 1970 to be ordered."""
    if unit in TICKS and not dtype.is_temporal():
        return number(column, dtype) * TICKS[unit]
    return moment(column, dtype, unit).dt.epoch("us").cast(pl.Float64)


def moment(column: str, dtype: pl.DataType, unit: str) -> pl.Expr:
    """Column as a Datetime in UTC; `unit` (see FieldSpec) says how to read numbers and texts."""
    if dtype.is_temporal():
        return pl.col(column).cast(pl.Datetime("us"))
    if unit in TICKS:
        return (number(column, dtype) * TICKS[unit]).cast(pl.Int64).cast(pl.Datetime("us"))
    text = pl.col(column).cast(pl.String).str.strip_chars()
    text = pl.when(text != "").then(text)
    if unit == "iso":
        return text.str.to_datetime(time_unit="us")
    if "%" in unit:
        if "%H" in unit and "%M" not in unit:  # polars reads no hour without its minutes
            text, unit = text + " 00", f"{unit} %M"
        return text.str.strptime(pl.Datetime("us"), unit)
    raise UserError(f"unit={unit} of column '{column}' is not allowed: expected s | ms | us | iso | a format with %")
