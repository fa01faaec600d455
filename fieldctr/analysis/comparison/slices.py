"""The same comparison by the values of a field, by how often train has them, or by day.

Exploratory, as nobody asked for these slices beforehand.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from fieldctr.analysis.comparison.clusters import error_of
from fieldctr.analysis.comparison.comparison import Terms, differences, spoken
from fieldctr.analysis.comparison.doubt import Error, holm, with_interval
from fieldctr.analysis.comparison.effects import Rows
from fieldctr.analysis.comparison.pairs import Scores, measured
from fieldctr.data.dataset import Dataset, Split
from fieldctr.data.encoding import Encoding
from fieldctr.data.fields.spelling import number
from fieldctr.data.fields.times import moment
from fieldctr.data.numbers import Scaling
from fieldctr.data.shards.reader import require
from fieldctr.data.table import DROP, LABEL, SPLIT
from fieldctr.errors import UserError, unknown
from fieldctr.schema import Field

DAY = "day"
FREQUENCY = "frequency"  # alone, or with : before the name of a field
ITEM = "item"  # the kind of entity whose first field it is of, where it stands alone
MOST = 10  # values of a field; the others are one slice
QUARTERS = (0.25, 0.5, 0.75)
UNKNOWN = "missing or unseen"
NOTE = (
    "Exploratory: these slices were looked at after the fact. p is adjusted by Holm over all slices and arms of this "
    "table, not over the fields that were tried. A difference between two slices is not tested here."
)


class Slicing(NamedTuple):
    """Which slice each row is in."""

    field: str
    codes: np.ndarray  # (n,) of int
    names: dict[int, str]
    ordered: bool = False  # by code: days and quarters; else the most frequent first


def by_field(dataset: Dataset, split: str, name: str, *, key: str) -> Slicing:
    """By a field's values as the table has them; numbers by their quarters. UserError, which names `key`, where there
    is no such field or a row has several values of it."""
    field, column = _single(dataset, name, f"{key}={name}")
    rows = getattr(dataset, split)
    ids = np.asarray(rows.ids[:, column])
    encoding = Encoding.load(dataset.folder)
    if field.numeric:
        numeric = [one.name for one in dataset.schema.fields if one.numeric]
        return _by_quarter(name, ids > 0, rows.values[:, numeric.index(name)], encoding.scales[name])
    words = encoding.vocabularies.get(name)
    names = {} if words is None else dict(zip(words["id"].to_list(), words["value"].to_list(), strict=True))
    return Slicing(name, ids, {0: UNKNOWN} | names)


def counts_train(asked: str) -> bool:
    """Whether a slicing may be by how many rows of train have a value: frequency, or frequency:FIELD."""
    return asked.partition(":")[0] == FREQUENCY


def counted_field(asked: str, node: Mapping[str, Any], *, key: str) -> str | None:
    """The field whose values are counted, or None where none are: FIELD of frequency:FIELD; `frequency` is of items.

    `node` is the configuration of the data set; UserError where it does not say what an item is.
    """
    _, colon, name = asked.partition(":")
    if not counts_train(asked) or (not colon and FREQUENCY in node["fields"]):
        return None
    of_items = (node.get("entities") or {}).get(ITEM) or []
    if not colon and not of_items:
        raise UserError(
            f"{key}={FREQUENCY}: dataset '{node['name']}' does not say what an item is. Give the field, such as "
            f"{FREQUENCY}:{next(iter(node['fields']))}"
        )
    return name if colon else str(of_items[0])


def by_frequency(dataset: Dataset, split: str, name: str, *, key: str, train: Split | None = None) -> Slicing:
    """By how many rows of train have the row's value of a field: none, 1 to 9, 10 to 99, ....

    `train` are the rows that a model was fitted to, where these are not all. None is of values that are missing, not in
    these rows, or too rare for the vocabulary. UserError as in `by_field`, and for numbers.
    """
    asked = f"{key}={FREQUENCY}:{name}"
    field, column = _single(dataset, name, asked)
    if field.numeric:
        raise UserError(f"{asked}: this field is a number, and numbers have no count. Take a field of values")
    counts = np.bincount((train or dataset.train).ids[:, column], minlength=field.vocab_size)
    counts[0] = 0
    digits = np.searchsorted(10 ** np.arange(19), counts, side="right")
    ends = {int(code): (10 ** (int(code) - 1), 10 ** int(code) - 1) for code in np.unique(digits) if code}
    names = {code: f"{low:,} to {high:,}" for code, (low, high) in ends.items()}
    ids = np.asarray(getattr(dataset, split).ids[:, column])
    return Slicing(f"train rows of {name}", digits[ids], {0: "none"} | names, ordered=True)


def _single(dataset: Dataset, name: str, asked: str) -> tuple[Field, int]:
    """The field of which a row has one value, and its id column; UserError, which says what was `asked`, without."""
    fields = {field.name: field for field in dataset.schema.fields}
    if name not in fields:
        raise UserError(f"{asked}: {unknown('field', name, (*fields, DAY))}")
    if fields[name].width > 1 or fields[name].vector:
        raise UserError(f"{asked}: a row has several values of this field. Take a field with one")
    return fields[name], dataset.schema.column_offsets[dataset.schema.index(name)]


def _by_quarter(name: str, present: np.ndarray, values: np.ndarray, scale: Any) -> Slicing:
    if isinstance(scale, Scaling):
        values = np.asarray(values, np.float64) * scale.sd + scale.mean
    if not present.any():
        return Slicing(name, np.zeros(len(values), np.int64), {0: UNKNOWN})
    edges = np.unique(np.quantile(values[present], QUARTERS))
    ends = ["-inf", *(f"{edge:.6g}" for edge in edges), "inf"]
    names = {i + 1: f"({low}, {high}]" for i, (low, high) in enumerate(pairwise(ends))}
    return Slicing(name, np.where(present, np.searchsorted(edges, values) + 1, 0), {0: UNKNOWN} | names, ordered=True)


def days(frame: pl.LazyFrame, column: str, unit: str, dataset: Dataset, split: str) -> Slicing:
    """The day (UTC) of each row of a split, from the raw table: a prepared one keeps no moments.

    UserError where the raw table has no such column, or other rows by now.
    """
    schema = frame.collect_schema()
    require(schema, [column])
    kept = frame.filter(pl.col(DROP).is_null()) if DROP in schema else frame
    day = moment(column, schema[column], unit).dt.date().cast(pl.String)
    rows = kept.filter(pl.col(SPLIT) == split).select(day=day, label=number(pl.col(LABEL), schema[LABEL]))
    found = rows.collect(engine="streaming")
    if not np.array_equal(found["label"].to_numpy(), getattr(dataset, split).label):
        raise UserError(f"day: the raw files do not have the {split} rows of table {dataset.digest} any more")
    names = found["day"].drop_nulls().unique().sort()
    codes = found["day"].replace_strict(names, range(1, len(names) + 1), default=0, return_dtype=pl.Int64)
    return Slicing(DAY, codes.to_numpy(), {0: "no day"} | dict(enumerate(names.to_list(), 1)), ordered=True)


def sliced(slicing: Slicing, rows: Rows, scores: Scores, against: str, terms: Terms) -> dict[str, Any]:
    """The differences in each slice, with the intervals of the whole table; a slice that has none says why."""
    parts = []
    for name, mask in _masks(slicing):
        own = rows.take(mask)
        part: dict[str, Any] = {"value": name, "num_rows": int(mask.sum()), "reference": {}, "left_out": []}
        part["positive_rate"] = float(np.average(own.clicked, weights=own.weight))
        cut = {arm: {seed: _taken(load, mask) for seed, load in seeds.items()} for arm, seeds in scores.items()}
        part["differences"] = []
        for metric in terms.metrics:
            try:
                found = measured(metric, own, cut)
            except UserError as error:  # one class only, or one user: nothing to say of this slice
                part["left_out"].append(str(error))
                continue
            part["reference"][metric] = found.mean(against)
            part["differences"] += differences([found], against, terms)
        parts.append(part)
    _adjust(parts, terms)
    return {
        "field": slicing.field,
        "exploratory": True,
        "note": NOTE,
        "against": against,
        "metric": terms.metrics[0],
        "parts": parts,
    }


def measured_slices(slicing: Slicing, rows: Rows, logit: np.ndarray) -> list[dict[str, Any]]:
    """The AUC of one model in each slice, with its 95 % interval over clusters of rows; one that has none says why."""
    parts: list[dict[str, Any]] = []
    for name, mask in _masks(slicing):
        own = rows.take(mask)
        part: dict[str, Any] = {"value": name, "num_rows": int(mask.sum())}
        part["positive_rate"] = float(np.average(own.clicked, weights=own.weight))
        try:
            found = measured("auc", own, {"model": {0: _taken(lambda: logit, mask)}})
        except UserError as error:  # one class only, or of one user: nothing to say of this slice
            parts.append(part | {"left_out": str(error)})
            continue
        error = Error(error_of(found.sampling.covariance, [1.0]), found.sampling.freedom)
        auc = with_interval(found.mean("model"), error)
        part |= {"auc": auc.difference, "low": max(0.0, auc.low), "high": min(1.0, auc.high)}
        parts.append(part | {"num_clusters": found.sampling.num_clusters})
    return parts


def _taken(load: Callable[[], np.ndarray], mask: np.ndarray) -> Callable[[], np.ndarray]:
    return lambda: load()[mask]


def _masks(slicing: Slicing) -> list[tuple[str, np.ndarray]]:
    """The most frequent values, and the others as one."""
    codes, counts = np.unique(slicing.codes, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    kept = codes[order] if len(codes) <= MOST + 1 else codes[order[:MOST]]
    kept = np.sort(kept) if slicing.ordered else kept
    found = [(slicing.names.get(int(code), f"value {code}"), slicing.codes == code) for code in kept]
    if len(kept) < len(codes):
        found.append((f"{len(codes) - len(kept):,} other values", ~np.isin(slicing.codes, kept)))
    return found


def _adjust(parts: list[dict[str, Any]], terms: Terms) -> None:
    """Holm over all slices and arms, within a metric."""
    for metric in terms.metrics:
        places = [(part, i) for part in parts for i, one in enumerate(part["differences"]) if one["metric"] == metric]
        adjusted = holm([part["differences"][i]["p"] for part, i in places])
        for (part, i), p in zip(places, adjusted, strict=True):
            part["differences"][i] = spoken(part["differences"][i] | {"p_holm": p}, terms)
