"""Scores raw rows with the model in this folder: `Scorer().pctr([{"user": "u1", "price": 3}, ...])`.

`python scorer.py rows.csv`, or rows.jsonl, prints the pCTR of each row. Needs numpy, and onnxruntime for model.onnx or
torch for model.pt2 and model.aoti.pt2. bundle.json says what is read of a row, how, and in which words it is refused.
"""

import ast
import csv
import json
import math
import re
import sys
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from difflib import get_close_matches
from functools import lru_cache, partial
from hashlib import blake2b
from itertools import chain, count, product
from pathlib import Path
from typing import Any

import numpy as np

Data = Mapping[str, Any]
EPOCH, LARGEST, MASK = datetime(1970, 1, 1, tzinfo=UTC), float(np.finfo(np.float32).max), (1 << 64) - 1


class Scorer:
    """A bundle, loaded. Rows are mappings from column to value; null is missing, an unknown value has id 0."""

    def __init__(self, folder: Path | str = Path(__file__).parent, *, threads: int = 1) -> None:
        self.bundle = json.loads((Path(folder) / "bundle.json").read_text(encoding="utf-8"))
        self.arrays = dict(np.load(Path(folder) / "arrays.npz"))
        self.known = {name: dict(zip(x, count(1))) for name, x in self.bundle["vocabularies"].items()}
        self.read = {x["name"]: lru_cache(1 << 16, typed=True)(partial(self.texts, x)) for x in self.bundle["texts"]}
        self.run = load_graph(Path(folder), threads)

    def pctr(self, rows: Sequence[Data]) -> np.ndarray:
        """The click probability of each row (n,) float64; ValueError for rows that cannot be scored."""
        logit = self.run(*self.inputs(rows)).astype(np.float64) if rows else np.zeros(0)
        pctr = 0.5 * (1 + np.tanh(0.5 * (logit + self.bundle["logit_offset"])))
        if len(strange := np.flatnonzero(~np.isfinite(pctr))):
            raise ValueError(self.bundle["not_finite"].format(strange[0] + 1, len(strange) - 1))
        return pctr

    def inputs(self, rows: Sequence[Data]) -> tuple[np.ndarray, np.ndarray]:
        """What the graph is given: ids (n, columns) int32 and the numbers of numeric fields (n, fields) float32."""
        names = list(dict.fromkeys(chain.from_iterable(rows)))
        for column in self.bundle["columns"]:
            if column not in names:
                near = ", ".join(get_close_matches(column, names, n=3, cutoff=0.5))
                listed = (
                    f"All: {', '.join(names)}" if len(names) <= 50 else self.bundle["many"].format(len(names), *names)
                )
                raise ValueError(f"no column '{column}'. {near and f'Nearest: {near}. '}{listed}")
        ids, values = zip(*map(self.encoded, rows), strict=True)
        return np.array(ids, np.int32), np.array(values, np.float32)

    def encoded(self, row: Data) -> tuple[list[int], list[float]]:
        """The ids of all fields of a row, and the values of its numeric fields."""
        ids, values, nulls, cells = [], [], self.bundle["nulls"], {}
        for name in self.bundle["columns"]:
            cell = tuple(x) if isinstance(x := row.get(name), list | np.ndarray) else x
            cells[name] = None if nulls and {str(cell), self.text(cell)} & {*nulls} else cell
        texts = {x["name"]: self.read[x["name"]](*map(cells.get, x["reads"])) for x in self.bundle["texts"]}
        for field in self.bundle["fields"]:
            if field["as"] == "ids":
                find = int if field["hashed"] else self.known[field["vocabulary"]].get
                own = [found for text in texts[field["name"]] if (found := find(text))]
            elif field["as"] == "past":
                own = self.past(field, texts[field["by"]], self.microseconds(field, cells[field["column"]]))
            else:
                x = self.mean(field, texts) if field["as"] == "mean" else self.number(field, cells[field["column"]])
                known, scaled = of_number(x, field["scale"])
                own, values = [known], values + scaled
            ids += [*own, *[0] * (field["width"] - len(own))]
        return ids, values

    def text(self, value: Any) -> str:
        """The one text of a value: that of 1, 1.0 and "1.00" is 1. Blank where there is none."""
        text = "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)
        if re.fullmatch(self.bundle["scientific"], text) and math.isfinite(x := float(text)):
            text = str(int(x)) if x == x // 1 and abs(x) < 2**63 else format(Decimal(repr(x)), "f")
        return respelled(text, self.bundle["spelling"])

    def number(self, field: Data, cell: Any) -> float:
        """A number that a float32 holds; NaN where there is none."""
        if not isinstance(cell, int | float):
            text = self.text(cell.strip() if isinstance(cell, str) else cell)
            cell = respelled(text, field["numbers"])
            if not re.fullmatch(self.bundle["number"], cell):
                raise ValueError(field["no_number"].format(text))
        return x if abs(x := float(cell)) <= LARGEST else math.nan

    def microseconds(self, field: Data, cell: Any) -> float:
        """A time since 1970 in UTC; NaN where there is none."""
        if field["ticks"] and not isinstance(cell, datetime):
            x = self.number(field, cell)
            if refusal := next((words for low, high, words in field["ranges"] if low <= x <= high), ""):
                raise ValueError(refusal.format(x))
            return x * field["ticks"]
        written = "" if cell is None else str(cell).strip()
        if not (text := respelled(written, field["times"])):
            return math.nan
        try:
            when = cell if isinstance(cell, datetime) else datetime.strptime(text, field["format"])
        except ValueError as error:
            raise ValueError(field["no_time"].format(written)) from error
        return (when.replace(tzinfo=when.tzinfo or UTC) - EPOCH) / timedelta(microseconds=1)

    def texts(self, field: Data, *cells: Any) -> tuple[str, ...]:
        """What a row says of a field: a text, several, or none."""
        parts = self.listed(field, *cells) if field["kind"] == "multi" else cells
        for place, part in enumerate(parts):
            if isinstance(part, tuple | list | dict):
                raise ValueError(field["no_value"][place % len(field["no_value"])])
        if field["kind"] == "datetime":
            x = self.microseconds(field, cells[0])
            when = None if math.isnan(x) else EPOCH + timedelta(microseconds=int(x))
            part = str(when.timetuple()[field["time_part"]]) if when else ""
            texts = [field["called"].get(part, part)]
        elif field["kind"] == "log_square":
            x = self.number(field, cells[0])
            texts = ["" if math.isnan(x) else str(math.floor(math.log(x) ** 2) if x > 2 else int(x))]
        else:
            texts = [self.text(part) for part in parts]
        if field["kind"] != "multi":
            texts = [] if {*texts} & {*field["nulls"]} else [" & ".join(texts)]
        texts = [x for x in texts if x not in field["left_out"] and blake(x) % field["buckets"] == field["bucket"]]
        texts = (texts if field["repeats"] else list(dict.fromkeys(texts)))[slice(*field["kept"])]
        return tuple(str(bucket(x, field["num_buckets"])) if field["num_buckets"] else x for x in texts)

    def listed(self, field: Data, *cells: Any) -> list[Any]:
        """The values of a list, of several columns, or of a text with separators or as Python and JSON print a list."""
        parts = cells if field["several_columns"] else cells[0]
        if not isinstance(parts, tuple):
            text = self.text(parts).strip()
            bare = re.sub(self.bundle["quoted"], "", text)
            if re.fullmatch(self.bundle["nested"], bare):
                raise ValueError(field["no_list"].format(text))
            parts = text.split(field["separator"])
            if re.fullmatch(self.bundle["printed"], bare):
                parts = map(self.unquoted, re.findall(field["part"], text[1:-1]))
        return [part.strip() if isinstance(part, str) else part for part in parts]

    def unquoted(self, part: str) -> str:
        """A part of a printed list without the quotes around it."""
        for read in (json.loads, ast.literal_eval) if re.fullmatch(self.bundle["in_quotes"], part) else (str,):
            with suppress(ValueError, SyntaxError):
                return str(read(part))
        return part[1:-1]

    def mean(self, field: Data, texts: Mapping[str, tuple[str, ...]]) -> float:
        """The mean of what train says of the values, or of their crosses; NaN where there is none."""
        keys, learned = self.arrays[f"keys {field['name']}"], self.arrays[f"values {field['name']}"]
        crosses = product(*(texts[name] for name in field["of"]))
        wanted = np.array([key_of(cross) for cross in crosses], np.uint64)
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        found = np.where(keys[at] == wanted, learned[at], field["unseen"]).tolist()
        return sum(found) / len(found) if found else math.nan

    def past(self, field: Data, user: tuple[str, ...], time: float) -> list[int]:
        """The latest earlier events of the user, among those of the prepared table."""
        if math.isnan(time):
            raise ValueError(field["blank_time"])
        events, times = self.arrays[f"events {field['name']}"], self.arrays[f"times {field['name']}"]
        start, stop = field["users"].get("".join(user), (0, 0))
        end = start + int(np.searchsorted(times[start:stop], time))
        return events[max(start, end - field["width"]) : end].tolist()


def respelled(text: str, rules: Sequence[tuple[str, str]]) -> str:
    """A text after each of the replacements."""
    for pattern, replacement in rules:
        text = re.sub(pattern, replacement, text)
    return text


def of_number(x: float, scale: Data) -> tuple[int, list[float]]:
    """The id of a number, and its scaled value where the id does not say all."""
    if "edges" in scale:
        return 0 if math.isnan(x) else bisect_left(scale["edges"], x) + 1, []
    scaled = (x - scale["mean"]) / scale["sd"]
    return (1, [scaled]) if abs(scaled) <= LARGEST else (0, [0.0])


def mixed(x: int) -> int:
    """The finaliser of splitmix64."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> shift)) * factor & MASK
    return x ^ (x >> 31)


def bucket(text: str, num_buckets: int) -> int:
    """The bucket of a text, from 1."""
    terms = ((mixed(j * 0x9E3779B97F4A7C15 & MASK) | 1) * (x + 1) for j, x in enumerate(text.encode(), 1))
    return 1 + mixed(sum(terms) & MASK) % num_buckets


def blake(text: str) -> int:
    """64 bits of blake2b."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def key_of(cross: Sequence[str]) -> int:
    """The key of a cross of values in what statistics learned; the lowest eight bits are a fold's."""
    key = 0
    for text in cross:
        key = mixed(key + blake(text) & MASK)
    return key & ~255


def load_graph(folder: Path, threads: int) -> Callable[..., np.ndarray]:
    """What gives the logits (n,) of ids (n, columns) and values (n, fields)."""
    if (folder / "model.onnx").exists():
        import onnxruntime

        options, path = onnxruntime.SessionOptions(), folder / "model.onnx"
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [one.name for one in session.get_inputs()]
        return lambda *arrays: np.asarray(session.run(None, dict(zip(names, arrays, strict=False)))[0])
    import torch

    torch.set_num_threads(threads)
    if (compiled := folder / "model.aoti.pt2").exists():
        module = torch._inductor.aoti_load_package(compiled)
    else:
        module = torch.export.load(folder / "model.pt2").module()
    return torch.inference_mode()(lambda *given: module(*(torch.from_numpy(x) for x in given if x.size)).numpy())


if __name__ == "__main__":
    path = Path(sys.argv[1])
    with path.open(encoding="utf-8-sig", newline="") as file:
        table = list(csv.DictReader(file) if path.suffix == ".csv" else map(json.loads, filter(str.strip, file)))
    try:
        print(*Scorer().pctr(table), sep="\n")
    except ValueError as error:
        sys.exit(f"{path}: {error}")
