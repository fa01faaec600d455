"""What encoding learned from train: per field a vocabulary, bins or a scale; saved beside the data."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from fieldctr.data.fields.kinds import LATER, Spec, spec_type
from fieldctr.data.numbers import Binning, Scaling
from fieldctr.data.shards.dictionary import VOCABULARY
from fieldctr.disk import write_json

ENCODING_FILE = "encoding.json"
VOCABULARY_FILE = "vocabulary.parquet"


@dataclass(frozen=True)
class Encoding:
    """The specs of a table, and what was learned of its fields, by their names."""

    specs: tuple[Spec, ...]  # statistics behind fields, histories behind both
    vocabularies: Mapping[str, pl.DataFrame]  # of value, id, count by id; none for a number and for a hash
    scales: Mapping[str, Binning | Scaling]

    def save(self, folder: Path) -> None:
        scales = [self.scales.get(spec.name) for spec in self.specs]
        record = {"fields": list(map(_node, self.specs)), "scales": [scale and scale._asdict() for scale in scales]}
        write_json(folder / ENCODING_FILE, record)
        tables = [pl.DataFrame(schema={"field": pl.String, **VOCABULARY})]
        for spec in self.specs:
            if spec.name in self.vocabularies:
                tables.append(self.vocabularies[spec.name].select(pl.lit(spec.name).alias("field"), *VOCABULARY))
        pl.concat(tables).write_parquet(folder / VOCABULARY_FILE)

    @classmethod
    def load(cls, folder: Path) -> "Encoding":
        record = json.loads((folder / ENCODING_FILE).read_text(encoding="utf-8"))
        specs = tuple(map(_spec, record["fields"]))
        scales = {
            spec.name: Binning(**node) if "edges" in node else Scaling(**node)
            for spec, node in zip(specs, record["scales"], strict=True)
            if node
        }
        words = pl.read_parquet(folder / VOCABULARY_FILE).partition_by("field", as_dict=True, include_key=False)
        return cls(specs, {name: table for (name,), table in words.items()}, scales)


def _node(spec: Spec) -> dict[str, Any]:
    return {key: value for key, value in asdict(spec).items() if (key, value) not in LATER.items()}


def _spec(node: Mapping[str, Any]) -> Spec:
    lists = {key: tuple(value) for key, value in node.items() if isinstance(value, list)}  # JSON knows no tuple
    return spec_type(node["kind"])(**{**node, **lists})
