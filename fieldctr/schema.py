"""What a prepared table looks like to a model: its fields, their vocabularies and their id columns."""

import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fieldctr.artifacts import digest
from fieldctr.disk import write_json


@dataclass(frozen=True)
class Field:
    """One input field. Ids are local: 0 is missing or unseen, 1..vocab_size-1 are known features.

    A numeric field owns two rows and one id column: id 0 says missing (row 0), id 1 present (row 1, times the value).
    A vector field owns no row: its ids say which of its vectors, that lie beside the table, is mapped to an embedding.
    """

    name: str
    vocab_size: int  # rows of its table, row 0 included
    width: int = 1  # id columns it owns; > 1 for a multi-valued field, padded on the right with 0
    numeric: bool = False
    text: str = ""  # what a language model reads; "" marks a field without usable semantics
    shares: str = ""  # the field whose features and rows it has, as a history has its item's; vocab_size is the same
    vector: int = 0  # numbers of each of its vectors, one per id, that of id 0 being zeros; 0: it has none

    @property
    def num_rows(self) -> int:
        """How many rows of the embedding table are its own."""
        return 0 if self.shares or self.vector else self.vocab_size


@dataclass(frozen=True)
class Schema:
    """All fields of a table, in the order of their id columns."""

    fields: tuple[Field, ...]

    @property
    def num_fields(self) -> int:
        """F, the number of fields."""
        return len(self.fields)

    @property
    def num_pairs(self) -> int:
        """P = F(F-1)/2 unordered field pairs."""
        return self.num_fields * (self.num_fields - 1) // 2

    @cached_property
    def num_columns(self) -> int:
        """S, the id columns."""
        return sum(field.width for field in self.fields)

    @cached_property
    def num_numeric(self) -> int:
        """N, the value columns: one per numeric field, in field order."""
        return sum(field.numeric for field in self.fields)

    @cached_property
    def num_values(self) -> int:
        """The value columns of a batch: those of numeric fields, then the numbers of each vector field."""
        return self.num_numeric + sum(field.vector for field in self.fields)

    @cached_property
    def vocab_size(self) -> int:
        """V, the rows of one table for all fields, row 0 of each field included; shared ones count once."""
        return sum(field.num_rows for field in self.fields)

    @cached_property
    def row_offsets(self) -> tuple[int, ...]:
        """Per field, the first of its rows in the table; a field that shares has those of the other one."""
        own = [field for field in self.fields if not field.shares]
        starts = dict(zip((field.name for field in own), _starts([field.num_rows for field in own]), strict=True))
        return tuple(starts[field.shares or field.name] for field in self.fields)

    @cached_property
    def column_offsets(self) -> tuple[int, ...]:
        """Per field, the first of its id columns."""
        return _starts([field.width for field in self.fields])

    def index(self, name: str) -> int:
        """Position of the field called `name`; KeyError when there is none."""
        for position, field in enumerate(self.fields):
            if field.name == name:
                return position
        raise KeyError(name)

    def unshared(self) -> "Schema":
        """The schema without shared rows: what a table needs whose rows mean another thing in each field."""
        return Schema(tuple(replace(field, shares="") for field in self.fields))

    def by_key(self) -> "Schema":
        """The schema with a row for each vector, in its place: a vector field as the categories that its keys are."""
        return Schema(tuple(replace(field, vector=0) for field in self.fields))

    def fingerprint(self) -> str:
        """sha256 of the canonical schema: equal for equal tables on any machine."""
        return digest(self._record())

    def save(self, path: Path) -> None:
        write_json(path, self._record())

    def _record(self) -> dict[str, Any]:
        """For JSON: without keys that say nothing and came later, so that earlier tables keep their fingerprint."""
        later = {("shares", ""), ("vector", 0)}
        records = [asdict(field) for field in self.fields]
        said = [{key: value for key, value in record.items() if (key, value) not in later} for record in records]
        return {"fields": said}

    @classmethod
    def load(cls, path: Path) -> "Schema":
        record = json.loads(path.read_text(encoding="utf-8"))
        return cls(tuple(Field(**field) for field in record["fields"]))


def _starts(sizes: list[int]) -> tuple[int, ...]:
    starts, total = [], 0
    for size in sizes:
        starts.append(total)
        total += size
    return tuple(starts)
