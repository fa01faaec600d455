"""The scorer of a bundle: bundle.json says what each field reads and how, arrays.npz what was learned of train."""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from .cells import LARGEST, microseconds, number, spelled, texts_of
from .graph import load_graph
from .hashes import blake, bucket, key_of_cross

Row = Mapping[str, Any]
REMEMBERED = 1 << 16  # cells of a field whose texts are kept
MOST_NAMED = 50  # columns that a message lists


class Scorer:
    """A bundle, loaded. Rows are mappings from column to value; null is missing, an unknown value has id 0."""

    def __init__(self, folder: Path | str = Path(__file__).parents[1], *, threads: int = 1) -> None:
        folder = Path(folder)
        self.bundle = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
        self.arrays = dict(np.load(folder / "arrays.npz"))
        words = self.bundle["vocabularies"]
        self.known = {name: {text: i for i, text in enumerate(texts, 1)} for name, texts in words.items()}
        readers = self.bundle["texts"]
        self.read = {one["name"]: lru_cache(REMEMBERED, typed=True)(partial(texts_of, one)) for one in readers}
        self.run = load_graph(folder, threads)

    def pctr(self, rows: Sequence[Row]) -> np.ndarray:
        """The click probability of each row (n,) float64; ValueError for rows that cannot be scored."""
        if not rows:
            return np.zeros(0)
        logit = self.run(*self.inputs(rows)).astype(np.float64) + self.bundle["logit_offset"]
        pctr = 0.5 * (1 + np.tanh(0.5 * logit))
        if len(strange := np.flatnonzero(~np.isfinite(pctr))):
            raise ValueError(
                f"row {strange[0] + 1:,} gets no finite score, nor do {len(strange) - 1:,} others: a number in it is "
                "far from those of train."
            )
        return pctr

    def inputs(self, rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
        """What the graph is given: ids (n, columns) int32 and the numbers of numeric fields (n, fields) float32."""
        columns = {name: self._cells(rows, name) for name in self._required(rows)}
        texts = {
            one["name"]: [self.read[one["name"]](*cells) for cells in zip(*map(columns.get, one["reads"]), strict=True)]
            for one in self.bundle["texts"]
        }
        ids, values = [], [np.empty((len(rows), 0), np.float32)]
        for field in self.bundle["fields"]:
            if field["as"] == "ids":
                ids.append(self._ids(field, texts[field["name"]]))
            elif field["as"] == "history":
                ids.append(self._past(field, texts[field["by"]], columns[field["time"]]))
            else:
                own = self._numbers(field, texts, columns)
                known, scaled = _scaled(field["scale"], own)
                ids.append(known.astype(np.int32)[:, None])
                values += [] if scaled is None else [scaled[:, None]]
        return np.concatenate(ids, axis=1), np.concatenate(values, axis=1)

    def _required(self, rows: Sequence[Row]) -> list[str]:
        names = list(dict.fromkeys(itertools.chain.from_iterable(rows)))
        for column in self.bundle["columns"]:
            if column not in names:
                close = get_close_matches(column, names, n=3, cutoff=0.5)
                near = f"Nearest: {', '.join(close)}. " if close else ""
                shown, more = ", ".join(names[:MOST_NAMED]), len(names) > MOST_NAMED
                listed = f"There are {len(names):,}: {shown}, ..." if more else f"All: {shown}"
                raise ValueError(f"no column '{column}'. {near}{listed}")
        return self.bundle["columns"]

    def _cells(self, rows: Sequence[Row], name: str) -> list[Any]:
        """The cells of a column; what the source of the run takes for null is None, and a list can be remembered."""
        cells = [tuple(x) if isinstance(x := row.get(name), list | np.ndarray) else x for row in rows]
        if nulls := self.bundle["nulls"]:
            return [None if not isinstance(x, tuple) and {spelled(x), str(x)} & {*nulls} else x for x in cells]
        return cells

    def _ids(self, field: Row, lists: list[tuple[str, ...]]) -> np.ndarray:
        """Ids (n, width): known values first, then 0."""
        known, buckets = self.known.get(field["vocabulary"], {}), field["num_buckets"]
        ids = np.zeros((len(lists), field["width"]), np.int32)
        for row, texts in enumerate(lists):
            found = [bucket(text, buckets) if buckets else known.get(text, 0) for text in texts]
            for place, one in enumerate(filter(None, found)):
                ids[row, place] = one
        return ids

    def _numbers(self, field: Row, texts: Mapping[str, list], columns: Mapping[str, list]) -> np.ndarray:
        """A number (n,) per row, NaN where it has none: its own, or the mean of what train says of its values."""
        if field["as"] == "number":
            words = field["null_words"]
            return np.array([number(cell, field["column"], words) for cell in columns[field["column"]]])
        of = [[self._hashes(one, row) for row in texts[one["name"]]] for one in field["of"]]
        keys, learned = self.arrays[f"keys {field['name']}"], self.arrays[f"values {field['name']}"]
        means = []
        for parts in zip(*of, strict=True):
            wanted = np.array([key_of_cross(hashes) for hashes in itertools.product(*parts)], np.uint64)
            at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            found = np.where(keys[at] == wanted, learned[at], field["unseen"]).tolist()
            means.append(sum(found) / len(found) if found else math.nan)
        return np.array(means)

    def _hashes(self, one: Row, texts: tuple[str, ...]) -> list[int]:
        return [blake(str(bucket(text, one["num_buckets"])) if one["num_buckets"] else text) for text in texts]

    def _past(self, field: Row, users: list[tuple[str, ...]], times: list[Any]) -> np.ndarray:
        """The latest earlier events (n, width) of each row's user, among those of the prepared table."""
        name, ids = field["name"], np.zeros((len(times), field["width"]), np.int32)
        events, when = self.arrays[f"events {name}"], self.arrays[f"times {name}"]
        for row, (user, time) in enumerate(zip(users, times, strict=True)):
            instant = microseconds(time, field["time"], field["unit"])
            if math.isnan(instant):
                raise ValueError(
                    f"field '{name}': column '{field['time']}' is blank in a row, which is then neither earlier nor "
                    "later than another. Leave such rows out."
                )
            start, stop = field["users"].get(user[0], (0, 0)) if user else (0, 0)
            end = start + int(np.searchsorted(when[start:stop], instant))
            past = events[max(start, end - field["width"]) : end]
            ids[row, : len(past)] = past
        return ids


def _scaled(scale: Row, x: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Ids of bins and no values; or whether there is a number, and the standardised number."""
    if "edges" in scale:
        return np.where(np.isnan(x), 0, np.searchsorted(np.asarray(scale["edges"]), x, side="left") + 1), None
    scaled = (x - scale["mean"]) / scale["sd"]
    scaled = np.where(np.abs(scaled) <= LARGEST, scaled, np.nan)
    return ~np.isnan(scaled), np.nan_to_num(scaled, nan=0.0).astype(np.float32)
