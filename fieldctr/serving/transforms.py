"""What a prepared table does with raw rows, as data for the scorer: bundle.json, and arrays.npz."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fieldctr.data.encoders.histories import load_events
from fieldctr.data.encoders.statistics import load_totals, numbers_of
from fieldctr.data.encoding import Encoding
from fieldctr.data.fields.kinds import FieldSpec, HistorySpec, Spec, StatisticSpec, VectorSpec, history_specs
from fieldctr.data.fields.times import TICKS
from fieldctr.data.shards.reader import Reader
from fieldctr.errors import UserError
from fieldctr.serving import rules

DIRECTIVES = frozenset("YmdHMSybBIpz%")  # of a format, which Python reads as polars does


class Transforms(NamedTuple):
    """What the scorer reads."""

    record: dict[str, Any]
    arrays: dict[str, np.ndarray]


def transforms(folder: Path, *, nulls: Iterable[str], negative_rate: float | None) -> Transforms:
    """The transforms of the prepared table in `folder`; UserError for a field that cannot be served.

    `nulls` are the texts that the source takes for missing.
    """
    encoding = Encoding.load(folder)
    specs, reader = encoding.specs, Reader.of_new_rows(encoding.specs)
    for spec in specs:
        _refuse_format(spec)
    columns = [column for spec in reader.fields for column in spec.reads] + [column for column, _ in reader.times]
    fields, arrays = [], {}
    events, totals = load_events(folder, history_specs(specs)), load_totals(folder, specs)
    for spec in specs:
        field: dict[str, Any] = {"name": spec.name, "width": spec.width}
        if isinstance(spec, HistorySpec):
            past = events[spec.name]
            arrays |= {f"events {spec.name}": past.ids, f"times {spec.name}": past.times}
            field |= {"as": "past", "by": spec.user(specs).name, "users": past.users, **rules.of_history(spec)}
        elif isinstance(spec, StatisticSpec):
            keys, values, unseen = numbers_of(spec, totals[spec.name])
            arrays |= {f"keys {spec.name}": keys, f"values {spec.name}": values}
            field |= {"as": "mean", "of": spec.of, "unseen": unseen, "scale": _scale(encoding, spec)}
        elif isinstance(spec, FieldSpec) and spec.numeric:
            field |= {"as": "number", "scale": _scale(encoding, spec), **rules.of_numbers(spec.column, spec.null_words)}
        else:
            field |= {"as": "ids", "vocabulary": spec.shares or spec.name, "hashed": bool(spec.num_buckets)}
        fields.append(field)
    record = {
        "columns": list(dict.fromkeys(columns)),
        "nulls": sorted({*nulls}),
        "logit_offset": 0.0 if negative_rate is None else math.log(negative_rate),
        "texts": [rules.of_texts(spec) for spec in reader.texts.values()],
        "fields": fields,
        "vocabularies": _vocabularies(encoding),
        **rules.OF_ALL,
    }
    return Transforms(record, arrays)


def _vocabularies(encoding: Encoding) -> dict[str, list[str]]:
    """By the field that owns it: the values, by ids from 1."""
    owners = [
        spec.name
        for spec in encoding.specs
        if isinstance(spec, VectorSpec) or (isinstance(spec, FieldSpec) and not (spec.numeric or spec.shares))
    ]
    found: dict[str, list[str]] = {name: [] for name in owners}
    for name in owners:
        if (table := encoding.vocabularies.get(name)) is not None:
            assert (table["id"].to_numpy() == np.arange(1, len(table) + 1)).all(), f"{name}: ids have gaps"
            found[name] = table["value"].to_list()
    return found


def _scale(encoding: Encoding, spec: Spec) -> Mapping[str, Any]:
    return encoding.scales[spec.name]._asdict()


def _refuse_format(spec: Spec) -> None:
    """UserError where a time has a format that only polars reads."""
    timed = isinstance(spec, HistorySpec) or (isinstance(spec, FieldSpec) and spec.kind == "datetime")
    if not timed or spec.unit in TICKS or spec.unit == "iso":
        return
    unknown: Sequence[str] = [one for one in re.findall(r"%(.)", spec.unit) if one not in DIRECTIVES]
    if unknown:
        allowed = " ".join(f"%{one}" for one in sorted(DIRECTIVES))
        raise UserError(
            f"field '{spec.name}': unit={spec.unit} cannot be served, because of %{unknown[0]}: expected only "
            f"{allowed}. Write the column so, or in unit iso, and train anew"
        )
