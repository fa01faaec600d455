"""`fieldctr prepare`: turn a raw table into id matrices and say what became of every row."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fieldctr.analysis.lint.lint import lint, worst
from fieldctr.config import Between, parse
from fieldctr.data.describe import describe
from fieldctr.data.prepare import Engine, prepared
from fieldctr.signals import Interrupted

WORST = 3  # findings that are printed


@dataclass(frozen=True)
class PrepareConfig:
    """The root of `fieldctr prepare`."""

    data_root: str
    outputs: str
    dataset: dict[str, Any]
    schema: dict[str, Any] | None
    engine: Engine
    max_memory_gb: Annotated[float, Between(0.1)] | None


def main(node: dict[str, Any]) -> None:
    """Print the table's account and the worst that lint finds; a table that is already prepared is only described."""
    config = parse(PrepareConfig, node, "")
    try:
        dataset = prepared(
            config.dataset,
            data_dir=Path(config.outputs) / "data",
            schema=config.schema,
            engine=config.engine,
            max_memory_gb=config.max_memory_gb,
        )
    except Interrupted as stop:
        stop.kept = "; what was read of the table is kept, in whole shards"
        raise
    findings = lint(dataset).findings
    print(describe(dataset), *([worst(findings, count=WORST)] if findings else []), sep="\n\n")
    if published := config.dataset.get("published"):
        print(
            f"as published: md5 of {', '.join(published['md5']) or 'no file'}; rows of {', '.join(published['rows'])}"
        )
    print(f"in {dataset.folder}")
