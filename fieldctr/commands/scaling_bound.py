"""`fieldctr scaling bound`: how FAT's generalisation bound grows with fields and width, and shrinks with rows.

Of a table whose law is known (dataset=synthetic_law) also what knowing so many of its effects would reach.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fieldctr.analysis.scaling.bound import capacity, oracle_lines
from fieldctr.config import Positive, checked, parse
from fieldctr.data.prepare import prepared


@dataclass(frozen=True)
class ScalingBoundConfig:
    """The root of `fieldctr scaling bound`."""

    data_root: str
    outputs: str
    dataset: dict[str, Any]
    schema: dict[str, Any] | None
    embedding_dim: int | list[int]


def main(node: dict[str, Any]) -> None:
    """Print the term for each width, and the oracle's curve where the table has one."""
    config = parse(ScalingBoundConfig, node, "")
    dataset = prepared(config.dataset, data_dir=Path(config.outputs) / "data", schema=config.schema)
    fields, rows = dataset.schema.num_fields, len(dataset.train)
    print(
        f"{dataset.name}: F = {fields} fields, m = {rows:,} train rows; the vocabulary does not matter\n"
        "sqrt(F d^2 + F^2) / sqrt(m), up to the bound's constant: ratios mean something, values do not"
    )
    widths = config.embedding_dim if isinstance(config.embedding_dim, list) else [config.embedding_dim]
    for width in widths:
        dim = checked(width, Positive, "embedding_dim")
        print(f"  d = {dim:<5} {capacity(fields, dim, rows):.4f}")
    if "oracle" in dataset.facts:
        print("\n".join(oracle_lines(dataset.facts["oracle"])))
