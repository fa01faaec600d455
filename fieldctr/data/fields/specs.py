"""The specs of a table's fields, from the node `fields` of the dataset's YAML."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_type_hints

from fieldctr.config import as_name, checked
from fieldctr.data.fields.kinds import (
    DERIVED,
    STATISTICS,
    FieldSpec,
    HistoryKind,
    HistorySpec,
    Kind,
    Spec,
    StatisticKind,
    StatisticSpec,
    VectorKind,
    VectorSpec,
)
from fieldctr.data.fields.spelling import text_of
from fieldctr.errors import UserError, listing, nearest

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
    "vector": ("file", "keys", "key", "vector", "null_words"),
    "history": ("of", "by", "time", "unit", "clicked", "max_length"),
}
NAMES = ("column", "columns", "of", "by", "time", "shares", "key", "vector")  # keys that name columns or fields


def field_specs(fields: Mapping[str, Any], default_min_count: int, *, null_words: bool = True) -> tuple[Spec, ...]:
    """The specs of a dataset's `fields` node, those of statistics and histories last; without those that are false.

    The dataset's own `min_count` and `null_words` are those of fields that set none.

    UserError for a stray key, a wrong value, a statistic of what cannot have one and a history of what has none.
    """
    named = {as_name(name, "dataset.fields"): node for name, node in fields.items()}
    plain = FieldSpec("", "", min_count=default_min_count, null_words=null_words)
    parsed = [_parse(name, node or {}, plain) for name, node in named.items() if node is not False]
    specs = sorted(parsed, key=lambda spec: (FieldSpec, VectorSpec, StatisticSpec, HistorySpec).index(type(spec)))
    refuse_duplicates(tuple(specs))
    known = {spec.name: spec for spec in specs}
    for i, spec in enumerate(specs):
        if isinstance(spec, StatisticSpec):
            _refuse_sources(spec, known)
        elif isinstance(spec, HistorySpec):
            _refuse_user(spec, known)
            specs[i] = replace(spec, num_buckets=_owner(spec, known).num_buckets)
        elif isinstance(spec, FieldSpec) and spec.shares and _owner(spec, known).num_buckets != spec.num_buckets:
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
    kind = checked(node.get("kind", "categorical"), Kind | StatisticKind | HistoryKind | VectorKind, f"{where}.kind")
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
    if kind == "vector":
        plain = _vector(name, node, usual, where)
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


def _vector(name: str, node: Mapping[str, Any], usual: FieldSpec, where: str) -> VectorSpec:
    """UserError for keys that do not fit the file's form."""
    file = checked(node.get("file"), str, f"{where}.file")
    if file.endswith(".npy") != ("keys" in node):
        raise UserError(f"{where}.file={file}: keys names the text file with a key per row of a .npy, and of no other")
    for key in ("key", "vector"):
        if key in node and file.endswith(".npy"):
            raise UserError(f"{where}.{key} is a column's name, and {file} has no columns. Drop it.")
    names = checked(node.get("vector", []), str | list[str], f"{where}.vector")
    columns = (names,) if isinstance(names, str) else tuple(names)
    text = name.replace("_", " ")
    return VectorSpec(name, name, file, vector=columns, null_words=usual.null_words, text=text)


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
        if name in fields and (fields[name].numeric or fields[name].kind in (*DERIVED, "vector")):
            expected = "expected one of kind categorical, multi, log_square or datetime"
            raise UserError(f"{where}: '{name}' is a field of kind {fields[name].kind}, {expected}")
    if sum(fields[name].kind == "multi" for name in spec.of if name in fields) > 1:
        raise UserError(f"{where}: expected at most one field of kind multi")


def _owner(spec: FieldSpec | HistorySpec, fields: Mapping[str, Spec]) -> FieldSpec:
    """The field whose table it has; UserError where that is no categorical one with a table of its own."""
    key = "of" if isinstance(spec, HistorySpec) else "shares"
    where, owner = f"dataset.fields.{spec.name}.{key}={spec.shares}", fields.get(spec.shares)
    if owner is None:
        raise UserError(f"{where}: no such field. {nearest(spec.shares, fields)}{listing(fields)}")
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


def refuse_duplicates(specs: tuple[Spec, ...]) -> None:
    """UserError for two fields of one name, for one column encoded twice in the same way, and for no field at all."""
    if not specs:
        raise UserError("dataset.fields is empty: expected at least one field")
    for name, times in Counter(spec.name for spec in specs).items():
        if times > 1:
            raise UserError(f"field '{name}' is given {times} times. Names must differ.")
    seen: dict[Spec, str] = {}
    for spec in specs:
        same = seen.setdefault(replace(spec, name="", text="", synonym=""), spec.name)
        if same != spec.name:
            raise UserError(f"fields '{same}' and '{spec.name}' are the same encoding of {spec.what}")
