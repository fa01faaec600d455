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

from fieldctr.config import Between, Positive, Weight, as_name, checked, nearest
from fieldctr.data.columns import column
from fieldctr.data.hashing import hashed
from fieldctr.data.spelling import by_word, canonical, spelled, squared_logs, text_of, told_number, value_texts
from fieldctr.data.times import moment
from fieldctr.errors import UserError

Kind = Literal["categorical", "multi", "quantile", "log_square", "value", "datetime", "cross"]
StatisticKind = Literal["target_mean", "count"]
HistoryKind = Literal["history"]
Part = Literal["minute", "hour", "weekday", "is_weekend", "day", "month", "year"]

SHARED = ("kind", "text", "synonym")
KEYS: dict[str, tuple[str, ...]] = {  # what a kind accepts besides SHARED and, if it is read from one, column
    "categorical": ("min_count", "missing", "null_words", "num_buckets", "shares"),
    "multi": (
        "min_count",
        "null_words",
        "separator",
        "max_length",
        "num_buckets",
        "shares",
        "keep",
        "columns",
        "padding",
    ),
    "quantile": ("bins", "null_words"),
    "log_square": ("min_count", "missing", "null_words"),
    "value": ("null_words", "scale"),
    "datetime": ("min_count", "part", "unit"),
    "cross": ("min_count", "columns", "null_words", "num_buckets"),
    "target_mean": ("of", "smoothing", "folds", "seed", "time", "unit", "bins"),
    "count": ("of", "folds", "seed", "time", "unit", "bins"),
    "history": ("of", "by", "time", "unit", "clicked", "max_length"),
}
NAMES = ("column", "columns", "of", "by", "time", "shares")  # keys that name columns or fields
STATISTICS = get_args(StatisticKind)
DERIVED = (*STATISTICS, *get_args(HistoryKind))  # read from no column of their own
AND = " & "  # between the parts of a cross
MAX_FOLDS = 255  # see fieldctr.data.counts
MAX_BUCKETS = 2**31 - 2  # ids are int32
LATER: dict[str, object] = {"keep": "first", "padding": ()}  # keys that say nothing, and are left out of records


@dataclass(frozen=True)
class FieldSpec:
    """One field: where it is read and how it is encoded. `min_count` is the frequency a value needs in train."""

    name: str
    column: str
    kind: Kind = "categorical"
    min_count: Positive = 1
    missing: str = ""  # categorical, log_square: one encoded value that means missing, such as -1
    null_words: bool = True  # nan, NULL, None and their like mean missing: fieldctr.data.spelling.NULL_WORDS
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


def field_specs(fields: Mapping[str, Any], default_min_count: int, *, null_words: bool = True) -> tuple[Spec, ...]:
    """The specs of a dataset's `fields` node, those of statistics and histories last; without those that are false.

    The dataset's own `min_count` and `null_words` are those of fields that set none.

    UserError for a stray key, a wrong value, a statistic of what cannot have one and a history of what has none.
    """
    named = {as_name(name, "dataset.fields"): node for name, node in fields.items()}
    plain = FieldSpec("", "", min_count=default_min_count, null_words=null_words)
    parsed = [_parse(name, node or {}, plain) for name, node in named.items() if node is not False]
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


def _parse(name: str, node: Mapping[str, Any], usual: FieldSpec) -> Spec:
    where = f"dataset.fields.{name}"
    if not isinstance(node, Mapping):
        raise UserError(f"{where}={node} is not allowed: expected null, false or keys such as kind, column")
    if isinstance(node.get("missing"), int | float | str) and not isinstance(node["missing"], bool):
        node = {**node, "missing": text_of(node["missing"])}
    node = {key: _names(value, f"{where}.{key}") if key in NAMES else value for key, value in node.items()}
    kind = checked(node.get("kind", "categorical"), Kind | StatisticKind | HistoryKind, f"{where}.kind")
    known = (*SHARED, *KEYS[kind]) if kind in (*DERIVED, "cross") else (*SHARED, "column", *KEYS[kind])
    for key in node:
        if key not in known:
            raise UserError(f"no key '{where}.{key}' for kind {kind}. {nearest(key, known)}All: {', '.join(known)}")
    plain: Spec = replace(usual, name=name, column=name, text=name.replace("_", " "))
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


def _names(value: Any, key: str) -> Any:
    """Names of columns, where YAML can have read numbers."""
    return [as_name(name, key) for name in value] if isinstance(value, list) else value and as_name(value, key)


def _listed(plain: FieldSpec, node: Mapping[str, Any], where: str) -> FieldSpec:
    """With the columns, or patterns of them, and the padding that the node of a multi-valued field names."""
    columns = checked(node.get("columns", []), str | list[str], f"{where}.columns")
    padding = checked(node.get("padding", []), list[str | int | float | bool], f"{where}.padding")
    spelled_so = (text_of(value.strip() if isinstance(value, str) else value) for value in padding)
    plain = replace(plain, padding=tuple(filter(None, spelled_so)))
    if "columns" not in node:
        return plain
    if not columns:
        raise UserError(f"{where}.columns is empty: expected columns, or a pattern such as genre_*")
    for key in ("column", "separator"):
        if key in node:
            raise UserError(f"{where} has columns and {key}: each column holds one value. Drop one of them.")
    names = (columns,) if isinstance(columns, str) else tuple(columns)
    return replace(plain, column=names[0], columns=names)


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


def values(spec: FieldSpec, schema: Mapping[str, pl.DataType]) -> pl.Expr:
    """The field's value per row: text, or a number (quantile, value); null where missing. For lists see data.lists.

    A number is as `fieldctr.data.spelling.told_number` gives it, a text as `meaning` makes a value of it.
    """
    for name in spec.reads:
        if isinstance(schema[name], pl.List | pl.Array | pl.Struct | pl.Binary):
            raise UserError(f"field '{spec.name}': column '{name}' holds {schema[name]}. A list needs kind: multi.")
    if spec.kind == "cross":
        return _crossed(spec, schema)
    dtype = schema[spec.column]
    if spec.kind in ("categorical", "log_square"):
        return spelled(column(spec.column), dtype) if spec.buckets == 1 else _of_bucket(spec, dtype)
    if spec.kind == "datetime":
        return _datetime_part(spec, dtype)
    return told_number(column(spec.column), dtype, null_words=spec.null_words)


def meaning(spec: FieldSpec) -> Callable[[pl.Expr], pl.Expr]:
    """What becomes of the texts that `values` gives: computed once per distinct text, 10x the speed of once per row.

    Null where a text means that there is no value.
    """

    def known(texts: pl.Expr) -> pl.Expr:
        spell = squared_logs if spec.kind == "log_square" else canonical
        one = spell(texts, null_words=spec.null_words)
        return pl.when(one != spec.missing).then(one) if spec.missing else one

    return known


def _crossed(spec: FieldSpec, schema: Mapping[str, pl.DataType]) -> pl.Expr:
    """Null where a part is: a blank is nobody, alone or in company."""
    texts = [value_texts(column(name), schema[name], null_words=spec.null_words) for name in spec.columns]
    return pl.concat_str(texts, separator=AND)


def _of_bucket(spec: FieldSpec, dtype: pl.DataType) -> pl.Expr:
    texts = value_texts(column(spec.column), dtype, null_words=spec.null_words)
    bucket = by_word(lambda known: (hashed(known) % spec.buckets).astype("int64").tolist(), pl.Int64())
    own = texts.map_batches(bucket, return_dtype=pl.Int64, is_elementwise=True)
    return pl.when(own == spec.bucket).then(texts)


def _datetime_part(spec: FieldSpec, dtype: pl.DataType) -> pl.Expr:
    when = moment(spec.column, dtype, spec.unit).dt
    if spec.part == "is_weekend":
        return (when.weekday() > 5).cast(pl.Int8).cast(pl.String)
    return getattr(when, spec.part)().cast(pl.String)
