"""`fieldctr prepare`: turn a raw table into id matrices and say what became of every row."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fieldctr.analysis.lint.lint import lint, worst
from fieldctr.config import Between, parse
from fieldctr.data.dataset import Dataset
from fieldctr.data.describe import describe
from fieldctr.data.frames import AnyFrame, in_place_of_files
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


def prepare(config: Mapping[str, Any], frame: AnyFrame | None = None) -> Dataset:
    """The prepared table of `compose("prepare", [...])`, from the cache or made now.

    A polars or pandas `frame` takes the place of the source's files: its content decides the table's digest.
    """
    settings = parse(PrepareConfig, config, "")
    outputs, node = Path(settings.outputs), settings.dataset
    if frame is not None:
        node = in_place_of_files(node, frame, outputs)
    return prepared(
        node,
        data_dir=outputs / "data",
        schema=settings.schema,
        engine=settings.engine,
        max_memory_gb=settings.max_memory_gb,
    )


def main(node: dict[str, Any]) -> None:
    """Print the table's account and the worst that lint finds; a table that is already prepared is only described."""
    try:
        dataset = prepare(node)
    except Interrupted as stop:
        stop.kept = "; what was read of the table is kept, in whole shards"
        raise
    findings = lint(dataset).findings
    print(describe(dataset), *([worst(findings, count=WORST)] if findings else []), sep="\n\n")
    if published := node["dataset"].get("published"):
        print(
            f"as published: md5 of {', '.join(published['md5']) or 'no file'}; rows of {', '.join(published['rows'])}"
        )
    print(f"in {dataset.folder}")
