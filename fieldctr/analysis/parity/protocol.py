"""What BARS-CTR published of a benchmark protocol: vocabularies, parameter counts, AUCs. One JSON file for each.

Source: Zhu et al., "BARS: Towards Open Benchmarking for Recommender Systems", SIGIR 2022, with the records' logs and
tables of https://github.com/reczoo/BARS; made with FuxiCTR.

Rows of a table. The board counts per categorical field its known features, one row for unseen ones and, since FuxiCTR
2, one for padding; per number one row. A field here has the known features and row 0 for missing or unseen ones; a
number has two rows, row 0 too. So a field's `vocab_size` is the board's less 1, and all rows are the board's before
FuxiCTR 2 and one more for each number.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fieldctr.errors import UserError, nearest
from fieldctr.schema import Field, Schema

FOLDER = Path(__file__).parent / "protocols"


@dataclass(frozen=True)
class Count:
    """The number of parameters in a record's log, and the settings that decide it."""

    model: str
    parameters: int
    dim: int = 0
    form: str = ""  # fwfm: scalar | felv, its first-order term; fmfm: matrix | vector
    hidden_dims: Sequence[int] = ()
    batch_norm: bool = False
    num_layers: int = 0  # cross layers
    padding: bool = False  # logged by FuxiCTR 2


@dataclass(frozen=True)
class Rerun:
    """Test AUC of five runs of one configuration."""

    mean: float
    sd: float


@dataclass(frozen=True)
class Protocol:
    """A board's data set. `board` is the AUC that it shows: of one run, chosen in part on the test split."""

    name: str
    vocab_size: Mapping[str, int | None]  # as the board counts; None for a number; empty where no record tells
    shared: Mapping[str, str]  # histories and the fields whose table they share
    counts: tuple[Count, ...]
    reruns: Mapping[str, Rerun]
    board: Mapping[str, float]

    @classmethod
    def load(cls, name: str) -> "Protocol":
        """The protocol of a dataset's name; a UserError where none was published."""
        known = sorted(path.stem for path in FOLDER.glob("*.json"))
        if name not in known:
            raise UserError(f"no published protocol '{name}'. {nearest(name, known)}All: {', '.join(known)}")
        record = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
        counts = tuple(Count(**node) for node in record["counts"])
        reruns = {model: Rerun(**node) for model, node in record["reruns"].items()}
        return cls(name, record["vocab_size"], record["shared"], counts, reruns, record["board"])

    def expected(self, field: str) -> int:
        """`vocab_size` that the field must have here."""
        size = self.vocab_size[field]
        return 2 if size is None else size - 1

    def schema(self) -> Schema:
        """The fields as they must come out of preparation, but histories of one id column."""
        return Schema(
            tuple(
                Field(name, self.expected(name), numeric=size is None, shares=self.shared.get(name, ""))
                for name, size in self.vocab_size.items()
            )
        )
