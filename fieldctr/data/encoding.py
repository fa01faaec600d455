"""What encoding learned from train: per field a vocabulary, bins or a scale; saved beside the data, and applied."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fieldctr.data.lexicon import WORDS, bucket_codes, lookup
from fieldctr.data.numbers import Binning, Scaling
from fieldctr.data.ragged import Codes, Ragged
from fieldctr.data.specs import LATER, FieldSpec, HistorySpec, Spec, StatisticSpec
from fieldctr.disk import write_json
from fieldctr.schema import Field, Schema

ENCODING_FILE = "encoding.json"
VOCABULARY_FILE = "vocabulary.parquet"
TURNED = 1024  # rows

Rule = np.ndarray | Binning | Scaling  # (codes,) ids per code, or what a numeric field needs


@dataclass(frozen=True)
class Encoding:
    """Per field its spec, its known values and its scale."""

    specs: tuple[Spec, ...]  # statistics behind fields, histories behind both
    words: tuple[pl.DataFrame | None, ...]  # of value, id, count by id; None for a number and for a hash
    scales: tuple[Binning | Scaling | None, ...]  # None where codes are looked up

    @property
    def stored(self) -> tuple[FieldSpec | StatisticSpec, ...]:
        """The specs of the id columns that each row has in its file: all but the histories."""
        return tuple(spec for spec in self.specs if not isinstance(spec, HistorySpec))

    def schema(self) -> Schema:
        """What a model sees."""
        fields = []
        for spec, words, scale in zip(self.specs, self.words, self.scales, strict=True):
            known = len(words) if words is not None else spec.num_buckets or 1
            fields.append(Field(spec.name, known + 1, spec.width, isinstance(scale, Scaling), spec.text, spec.shares))
        return Schema(tuple(fields))

    def rules(self, texts: Iterable[pl.Series]) -> list[Rule]:
        """Per stored field, what makes ids of its codes or its number. `texts` (codes,): what the codes of each say."""
        rules: list[Rule] = []
        said = iter(texts)  # of the fields first, in their order
        for spec, words, scale in zip(self.stored, self.words, self.scales, strict=False):
            own = next(said) if isinstance(spec, FieldSpec) and not spec.numeric else None
            if scale is not None:
                rules.append(scale)
            elif own is not None and words is not None:
                rules.append(lookup(own, words))
            elif own is not None and spec.num_buckets:
                rules.append(bucket_codes(own, spec.num_buckets))
        return rules

    def save(self, folder: Path) -> None:
        scales = [None if scale is None else scale._asdict() for scale in self.scales]
        write_json(folder / ENCODING_FILE, {"fields": list(map(_node, self.specs)), "scales": scales})
        tables = [pl.DataFrame(schema={"field": pl.String, **WORDS})]
        for spec, words in zip(self.specs, self.words, strict=True):
            if words is not None:
                tables.append(words.select(pl.lit(spec.name).alias("field"), *WORDS))
        pl.concat(tables).write_parquet(folder / VOCABULARY_FILE)

    @classmethod
    def load(cls, folder: Path) -> "Encoding":
        record = json.loads((folder / ENCODING_FILE).read_text(encoding="utf-8"))
        specs = tuple(_spec(node) for node in record["fields"])
        scales = [node and (Binning(**node) if "edges" in node else Scaling(**node)) for node in record["scales"]]
        words = pl.read_parquet(folder / VOCABULARY_FILE).partition_by("field", as_dict=True, include_key=False)
        known = [
            None
            if isinstance(scale, Scaling) or spec.num_buckets
            else words.get((spec.name,), pl.DataFrame(schema=WORDS))
            for spec, scale in zip(specs, scales, strict=True)
        ]
        return cls(specs, tuple(known), tuple(scales))


def _node(spec: Spec) -> dict[str, Any]:
    return {key: value for key, value in asdict(spec).items() if (key, value) not in LATER.items()}


def _spec(node: dict[str, Any]) -> Spec:
    if node["kind"] == "history":
        return HistorySpec(**node)
    if "of" not in node:
        columns, padding = tuple(node.pop("columns", ())), tuple(node.pop("padding", ()))
        return FieldSpec(columns=columns, padding=padding, **node)
    of = tuple(node.pop("of"))
    return StatisticSpec(of=of, **node)


def apply(
    rules: Sequence[Rule], specs: Sequence[FieldSpec | StatisticSpec], codes: Sequence[Codes], numbers: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Codes of each field (n,) or ragged, and numbers (Q, n), to ids (n, S) int32 and values (n, N) float32.

    Both have the fields first, in their order; behind their codes, what a statistic or a group is of.
    """
    columns, rows = sum(spec.width for spec in specs), numbers.shape[1]
    ids, values = np.empty((columns, rows), np.int32), [np.empty((0, rows), np.float32)]
    column = numeric = 0
    for i, (rule, spec) in enumerate(zip(rules, specs, strict=True)):
        own = ids[column : column + spec.width]
        if isinstance(rule, np.ndarray):
            _look_up(rule, codes[i], own)
        elif isinstance(rule, Binning):
            own[:] = rule.ids(numbers[numeric])
        else:
            scaled = rule.values(numbers[numeric])
            own[:] = ~np.isnan(scaled)
            values.append(np.nan_to_num(scaled, nan=0.0).astype(np.float32)[None])
        column, numeric = column + spec.width, numeric + spec.numeric
    return _transposed(ids), np.concatenate(values).T


def _look_up(rule: np.ndarray, codes: Codes, out: np.ndarray) -> None:
    """The ids of codes, to `out` (W, n); of a list the known ones first: an unseen value leaves no hole."""
    if isinstance(codes, Ragged):
        found = codes._replace(values=rule.take(codes.values, mode="clip"))
        out[:] = found.kept(found.values > 0).padded(len(out))
    else:
        rule.take(codes, out=out[0], mode="clip")  # 2x the speed of rule[codes]


def _transposed(ids: np.ndarray) -> np.ndarray:
    """(S, n) to (n, S), some rows at a time: what the cache holds is turned at twice the speed."""
    turned = np.empty(ids.shape[::-1], ids.dtype)
    for start in range(0, len(turned), TURNED):
        turned[start : start + TURNED] = ids[:, start : start + TURNED].T
    return turned
