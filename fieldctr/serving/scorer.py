"""Scores raw rows with the model in this folder: `Scorer().pctr([{"user": "u1", "price": 3}, ...])`.

`python scorer.py rows.csv`, or rows.jsonl, prints the pCTR of each row. Needs numpy, and onnxruntime for model.onnx or
torch for model.pt2 and model.aoti.pt2. bundle.json says by which rules cells become numbers, and where these belong.
"""

import ast
import csv
import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import lru_cache, partial
from hashlib import blake2b
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np

Rows = Sequence[Mapping[str, Any]]
LISTS = (list, tuple, dict, np.ndarray)
LIST, BETWEEN, TIME = "\ufdd0\ufdd1\ufdd2"  # before a list, between its values, before a time: no text has these
LARGEST, MASK = float(np.finfo(np.float32).max), (1 << 64) - 1


class Scorer:
    """A bundle, loaded. Rows are mappings from column to value; null is missing, an unknown value has id 0."""

    def __init__(self, folder: Path | str = Path(__file__).parent, *, threads: int = 1) -> None:
        self.bundle = json.loads((Path(folder) / "bundle.json").read_text(encoding="utf-8"))
        self.arrays = dict(np.load(Path(folder) / "arrays.npz"))
        self.known = {name: dict(zip(x, count(1))) for name, x in self.bundle["vocabularies"].items()}
        self.readers = {kind: [*map(self.reader, x)] for kind, x in self.bundle["readings"].items()}
        self.run = load_graph(Path(folder), threads)

    def pctr(self, rows: Rows) -> np.ndarray:
        """The click probability of each row (n,) float64; ValueError for rows that cannot be scored."""
        logit = self.run(*self.inputs(rows)).astype(np.float64) if rows else np.zeros(0)
        pctr = 0.5 * (1 + np.tanh(0.5 * (logit + self.bundle["logit_offset"])))
        if len(strange := np.flatnonzero(~np.isfinite(pctr))):
            raise ValueError(self.bundle["not_finite"].format(strange[0] + 1, len(strange) - 1))
        return pctr

    def inputs(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """What the graph is given: ids (n, columns) int32 and the numbers of numeric fields (n, fields) float32."""
        cells, arrays = self.cells(rows), self.arrays
        table = self.read("numbers", float, cells)
        if self.readers["hashes"]:
            table = np.concatenate([table, self.means(self.read("hashes", np.uint64, cells))], axis=1)
        numbers = table[:, arrays["numbers"]]
        scaled = (numbers - arrays["mean"]) / arrays["sd"]
        known = np.abs(scaled) <= LARGEST
        bins = known.astype(float)
        for place, edges in self.bundle["edges"]:
            bins[:, place] *= 1 + np.searchsorted(edges, numbers[:, place])
        past = [self.past(x, *table[:, x["reads"]].T) for x in self.bundle["histories"]]
        ids = np.concatenate([table, bins, *past], axis=1)[:, arrays["ids"]]
        values = np.where(known, scaled, 0)[:, arrays["values"]]
        return ids.astype(np.int32, order="C"), values.astype(np.float32, order="C")  # as a compiled model needs them

    def cells(self, rows: Rows) -> dict[str, list[Any]]:
        """What the rows have in each column; ValueError for one that none has."""
        names = dict.fromkeys(chain.from_iterable(rows))
        for column in self.bundle["columns"]:
            if column not in names:
                near = ", ".join(get_close_matches(column, names, cutoff=0.5))
                most, shown = self.bundle["most"], ", ".join([*names][: self.bundle["most"]])
                listed = self.bundle["many" if len(names) > most else "few"].format(shown, len(names))
                raise ValueError(f"no column '{column}'. {near and f'Nearest: {near}. '}{listed}")
        found = {name: [row.get(name) for row in rows] for name in self.bundle["columns"]}
        return {name: [written(x) if isinstance(x, LISTS) else x for x in cells] for name, cells in found.items()}

    def reader(self, x: Mapping[str, Any]) -> tuple[list[str], Callable[..., tuple]]:
        """The columns of a reading, and what makes numbers of their cells."""
        rules = [compiled(pattern, new) for pattern, new in x["rules"]]
        return x["reads"], lru_cache(1 << 16, typed=True)(partial(self.numbers, x, rules))

    def read(self, kind: str, dtype: type, cells: Mapping[str, list]) -> np.ndarray:
        """The numbers that all readings of a kind make of the rows, side by side."""
        read = (map(numbers, *(cells[name] for name in names)) for names, numbers in self.readers[kind])
        flat = np.fromiter(chain.from_iterable(chain.from_iterable(zip(*read, strict=True))), dtype)
        return flat.reshape(len(next(iter(cells.values()))), -1)

    def numbers(self, x: Mapping[str, Any], rules: list, *cells: Any) -> tuple:
        """What the cells of a row say to a reading."""
        text = rewritten(rules, cells if len(cells) > 1 else cells[0])
        texts = [part for part in re.split(f"[{LIST}-{TIME}]", text) if part]
        texts = (texts if x["repeats"] else list(dict.fromkeys(texts)))[slice(*x["kept"])]
        texts = [str(bucket(part, x["hashed"])) for part in texts] if x["hashed"] else texts
        if x["as"] == "id":
            known = self.known[x["vocabulary"]]
            found = [known[part] for part in texts if part in known]
        else:
            found = [*map(blake if x["as"] == "hash" else float, texts)]
        return (*found, *[x["blank"]] * (x["width"] - len(found)))

    def means(self, hashes: np.ndarray) -> np.ndarray:
        """What train says of each row's values or crosses, in the mean: (n, statistics), NaN where it has none."""
        arrays, key = self.arrays, np.uint64(0)
        given = hashes[:, arrays["inputs"]]  # (n, inputs of a cross, crosses); a cross of fewer begins with zeros
        none = (given == 0).sum(1) > arrays["unused"]
        for place in range(given.shape[1]):
            key = mixed(key + given[:, place])
        wanted = (key >> 8 << 8) + arrays["crosses"]  # the lowest eight bits were a fold's
        at = np.minimum(np.searchsorted(arrays["keys"], wanted), len(arrays["keys"]) - 1)
        found = np.where(arrays["keys"][at] == wanted, arrays["learned"][at], arrays["unseen"])
        sums, counts = np.zeros((2, arrays["crosses"][-1] + 1, len(hashes)))
        np.add.at(sums, arrays["crosses"], np.where(none, 0, found).T)
        np.add.at(counts, arrays["crosses"], ~none.T)
        return (sums / np.where(counts, counts, np.nan)).T

    def past(self, x: Mapping[str, Any], users: np.ndarray, times: np.ndarray) -> np.ndarray:
        """The latest events (n, width) of the users (n,) before the times (n,), among those of the prepared table."""
        events, keys, instants = (self.arrays[f"{what} {x['name']}"] for what in ("events", "keys", "instants"))
        first = users * (len(instants) + 1)
        start, end = np.searchsorted(keys, (first, first + np.searchsorted(instants, times)))
        at = np.maximum(start, end - x["width"])[:, None] + np.arange(x["width"])
        return np.where(at < end[:, None], events.take(at, mode="clip"), 0)


def written(cell: Any) -> str:
    """A cell as text: blank where there is no value, with marks in a list and before a time."""
    if isinstance(cell, LISTS):
        return LIST + BETWEEN.join(map(written, cell.items() if isinstance(cell, dict) else cell))
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    return f"{TIME}{cell}" if isinstance(cell, datetime) else str(cell)


def compiled(pattern: str, new: Any) -> tuple[Callable, Any]:
    """A rule: what replaces all that a pattern finds, and by what; by a text, or by what an operation makes of it."""
    return re.compile(pattern).sub, new if isinstance(new, str) else partial(OPERATIONS[new[0]], new[1])


def rewritten(rules: list[tuple[Callable, Any]], cell: Any) -> str:
    """What rules make of a cell, one after the other."""
    text = written(cell)
    for replace, new in rules:
        text = replace(new, text)
    return text


def refuse(words: str, found: re.Match) -> str:
    """ValueError, in words."""
    raise ValueError(words.format(found[0]))


def decimal(_: None, found: re.Match) -> str:
    """A number with an exponent as it is spelled without."""
    x = float(found[0])
    if not math.isfinite(x):
        return found[0]
    return str(int(x)) if x == x // 1 and abs(x) < 2**63 else np.format_float_positional(x, trim="-")


def number(ranges: list, found: re.Match) -> str:
    """A number times the factor of its range, which may refuse it; blank where it is in none."""
    x = float(found[0])
    factor, words = next((then for low, high, *then in ranges if low <= x <= high), (math.nan, ""))
    if words:
        raise ValueError(words.format(x))
    return "" if math.isnan(factor) else repr(x * factor)


def time(given: tuple[str, str], found: re.Match) -> str:
    """A time as microseconds since 1970 in UTC."""
    form, words = given
    try:
        when = datetime.strptime(found[1], form) if form else datetime.fromisoformat(found[1])
    except ValueError as error:
        raise ValueError(words.format(found[1])) from error
    return str(round(when.replace(tzinfo=when.tzinfo or UTC).timestamp() * 1e6))


def printed(given: tuple[str, str], found: re.Match) -> str:
    """A list that Python or JSON printed, with marks."""
    part, quoted = given
    parts = re.findall(part, found[0][1:-1])
    return LIST + BETWEEN.join(unquoted(x) if re.fullmatch(quoted, x) else x for x in parts)


def unquoted(part: str) -> str:
    """What stands in quotes."""
    for read in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError):
            return str(read(part))
    return part[1:-1]


def mixed(x: Any) -> Any:
    """The finaliser of splitmix64, of a number or of an array."""
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


OPERATIONS: dict[str, Callable[[Any, re.Match], str]] = {
    "refuse": refuse,
    "decimal": decimal,
    "number": number,
    "time": time,
    "printed": printed,
    "split": lambda separator, found: found[0].replace(separator, BETWEEN),
    "part": lambda part, found: f"{datetime.fromtimestamp(int(float(found[0])) / 1e6, UTC):{part}}",
    "square": lambda _, found: str(int(math.log(x) ** 2 if (x := float(found[0])) > 2 else x)),
    "only": lambda of, found: found[0] if blake(found[0]) % of[0] == of[1] else "",
}


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
