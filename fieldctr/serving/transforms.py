"""What a prepared table does with raw rows, as data for the scorer: bundle.json, and arrays.npz."""

import math
import re
from collections.abc import Iterable, Sequence
from itertools import count, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fieldctr.data.encoders.histories import load_events
from fieldctr.data.encoders.statistics import load_totals, numbers_of
from fieldctr.data.encoding import Encoding
from fieldctr.data.fields.kinds import (
    FieldSpec,
    HistorySpec,
    Spec,
    StatisticSpec,
    VectorSpec,
    history_specs,
    statistic_specs,
)
from fieldctr.data.fields.times import TICKS
from fieldctr.data.numbers import Binning, Scaling
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
    encoding, said = Encoding.load(folder), sorted({*nulls})
    specs, reader = encoding.specs, Reader.of_new_rows(encoding.specs)
    for spec in specs:
        _refuse_format(spec)
    past = load_events(folder, history_specs(specs))
    readings, vocabularies = Readings([], {}), _vocabularies(encoding)
    for spec in specs:
        if isinstance(spec, HistorySpec):
            vocabularies[f"who has {spec.name}"] = past[spec.name].users
            user = rules.of_texts(spec.user(specs), said)
            readings.add(f"who has {spec.name}", user | {"as": "id", "vocabulary": f"who has {spec.name}"})
            readings.add(f"when {spec.name}", rules.of_time(spec, said) | {"as": "number"})
        elif isinstance(spec, FieldSpec) and spec.numeric:
            readings.add(spec.name, rules.of_number(spec, said) | {"as": "number"})
        elif not isinstance(spec, StatisticSpec):
            own = rules.of_texts(reader.texts[spec.name], said)
            readings.add(
                spec.name, own | {"as": "number" if own["hashed"] else "id", "vocabulary": spec.shares or spec.name}
            )
    hashes = Readings([], {})
    for name in dict.fromkeys(name for spec in statistic_specs(specs) for name in spec.of):
        hashes.add(name, rules.of_texts(reader.texts[name], said) | {"as": "hash"})
    if hashes.all:
        hashes.add("", hashes.all[0] | {"rules": [("(?s).+", "")], "width": 1})  # a column of zeros
    columns = [column for spec in reader.fields for column in spec.reads] + [column for column, _ in reader.times]
    arrays = _statistics(folder, specs, hashes) | {
        f"{what} {name}": array
        for name, own in past.items()
        for what, array in (("events", own.ids), ("keys", own.keys), ("instants", own.instants))
    }
    layout, edges = _layout(encoding, readings)
    record = {
        "columns": list(dict.fromkeys(columns)),
        "logit_offset": 0.0 if negative_rate is None else math.log(negative_rate),
        "readings": {"numbers": readings.all, "hashes": hashes.all},
        "edges": edges,
        "histories": [
            {
                "name": spec.name,
                "reads": [readings.places[f"{what} {spec.name}"].start for what in ("who has", "when")],
                "width": spec.width,
            }
            for spec in history_specs(specs)
        ],
        "vocabularies": vocabularies,
        **rules.OF_ALL,
    }
    return Transforms(record, arrays | layout)


class Readings(NamedTuple):
    """What is read of a row, and in which columns of a table it stands."""

    all: list[dict[str, Any]]
    places: dict[str, range]

    def add(self, name: str, reading: dict[str, Any]) -> None:
        """Append a reading; its numbers stand in the columns behind those of the others."""
        start = self.width
        self.all.append(
            {"name": name, "blank": None if reading["as"] == "number" and not reading["hashed"] else 0} | reading
        )
        self.places[name] = range(start, start + reading["width"])

    @property
    def width(self) -> int:
        """How many columns there are so far."""
        return sum(map(len, self.places.values()))


def _layout(encoding: Encoding, readings: Readings) -> tuple[dict[str, np.ndarray], list[tuple[int, list[float]]]]:
    """Where in the table of readings, means, bins and histories a model's ids and numbers stand, and edges of bins."""
    specs = encoding.specs
    means = dict(zip((spec.name for spec in statistic_specs(specs)), count(readings.width)))
    numbers = {
        name: means.get(name, readings.places[name].start if name in readings.places else 0) for name in encoding.scales
    }
    scales = [encoding.scales[name] for name in numbers]
    bins = readings.width + len(means)
    places = readings.places | {name: range(column, column + 1) for column, name in enumerate(numbers, bins)}
    start = bins + len(numbers)
    for spec in history_specs(specs):
        places[spec.name] = range(start, start + spec.width)
        start += spec.width
    layout = {
        "numbers": np.array([*numbers.values()], np.int64),
        "mean": np.array([scale.mean if isinstance(scale, Scaling) else 0.0 for scale in scales]),
        "sd": np.array([scale.sd if isinstance(scale, Scaling) else 1.0 for scale in scales]),
        "values": np.array([scale.numeric for scale in scales], bool),
        "ids": np.array([column for spec in specs for column in places[spec.name]], np.int64),
    }
    return layout, [(place, scale.edges) for place, scale in enumerate(scales) if isinstance(scale, Binning)]


def _statistics(folder: Path, specs: Sequence[Spec], hashes: Readings) -> dict[str, np.ndarray]:
    """What train says of crosses, by their keys plus the number of the statistic; and which columns make a cross."""
    own, totals = statistic_specs(specs), load_totals(folder, specs)
    keys, learned, unseen, crosses = [np.zeros(0, np.uint64)], [np.zeros(0)], [], []
    for place, spec in enumerate(own):
        keys_of_values, values, of_others = numbers_of(spec, totals[spec.name])
        keys.append(keys_of_values + np.uint64(place))
        learned.append(values)
        for cross in product(*(hashes.places[name] for name in spec.of)):
            crosses.append((place, cross))
            unseen.append(of_others)
    most = max((len(cross) for _, cross in crosses), default=0)
    inputs = [[-1] * (most - len(cross)) + [*cross] for _, cross in crosses]
    order = np.argsort(np.concatenate(keys))
    return {
        "keys": np.concatenate(keys)[order],
        "learned": np.concatenate(learned)[order],
        "unseen": np.array(unseen),
        "crosses": np.array([place for place, _ in crosses], np.uint64),  # of which statistic each is
        "unused": np.array([most - len(cross) for _, cross in crosses], np.int64),
        "inputs": np.array(inputs, np.int64).reshape(len(crosses), most).T,
    }


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
