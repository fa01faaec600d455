"""`fieldctr bench growth`: how time and memory grow with rows, fields, width and vocabulary; what grows too fast."""

import multiprocessing
import tempfile
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

from fieldctr import processor
from fieldctr.analysis.cost_growth import Point, charts, markdown, slopes
from fieldctr.commands.bench_data import prepare_once
from fieldctr.commands.bench_train import LARGE_TABLE, BenchTrainConfig, measured, network
from fieldctr.commands.machine import start_runtime
from fieldctr.config import Between, OptimizerConfig, Positive, RuntimeConfig, TrainerConfig, parse
from fieldctr.data.generated import generated_split, write_generated_csv
from fieldctr.disk import write_json, write_text
from fieldctr.memory import available_mb, resident_mb
from fieldctr.training.costs import step_costs
from fieldctr.training.evaluate import evaluate
from fieldctr.training.pace import Pace

WORK = {  # what is measured along an axis, and the key that it changes
    "rows": (("prepare", "evaluate"), ""),
    "fields": (("step",), "num_fields"),
    "dim": (("step",), "embedding_dim"),
    "vocabulary": (("step",), "vocab_size"),
}
MARGIN = 0.8  # of the free memory that a point may take
CELL_BYTES = 16  # of a table in memory: its ids, and what draws them
MIN_COUNT = 2


@dataclass(frozen=True)
class BenchGrowthConfig:
    """The root of `fieldctr bench growth`."""

    data_root: str
    outputs: str
    folder: str
    rows: list[Positive]
    fields: list[Positive]
    dim: list[Positive]
    vocabulary: list[Positive]
    model: dict[str, Any]
    enhancer: dict[str, Any] | None
    trainer: TrainerConfig
    optimizer: OptimizerConfig
    runtime: RuntimeConfig
    num_fields: Positive
    vocab_size: Positive
    embedding_dim: Positive
    steps: Positive
    seed: Annotated[int, Between(0)]
    encoder: dict[str, Any]  # not read


def main(node: dict[str, Any]) -> None:
    """Measure point by point, each in a process of its own; leave tables, a picture and their numbers."""
    from fieldctr.analysis.plots import save  # half a second
    from fieldctr.analysis.report.picture import sheet

    config, points, folder = parse(BenchGrowthConfig, node, ""), [], Path(node["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    for axis, (works, _) in WORK.items():
        for work in works:
            for size in sorted(getattr(config, axis)):
                point = in_own_process(config, axis, work, size)
                points.append(point)
                print(f"{axis:10} {size:12,} {said(point)}", flush=True)
                leave(folder, node, points)
    found = slopes(points)
    told = markdown(points, found)
    write_text(folder / "growth.md", told)
    print(f"\n{told.partition(chr(10) * 2)[2]}")
    if found:
        print(save(sheet(charts(points, found), f"growth of cost: {processor.name()}"), folder / "growth"))


def leave(folder: Path, node: dict[str, Any], points: list[Point]) -> None:
    """Write what was found so far."""
    found = {
        "points": [x._asdict() for x in points],
        "exponents": [x._asdict() | {"above": x.above} for x in slopes(points)],
    }
    write_json(folder / "growth.json", {"processor": processor.name(), "config": node, **found})


def said(point: Point) -> str:
    if point.refused:
        return f"{point.work:8} {point.refused}"
    return f"{point.work:8} {point.cpu_s:10.4f} CPU s {point.memory_mb:9,.0f} MB"


def in_own_process(config: BenchGrowthConfig, axis: str, work: str, size: int) -> Point:
    """One point, by a process whose memory nothing else has touched."""
    with tempfile.TemporaryDirectory(prefix="fieldctr-bench-") as folder:
        if work == "prepare":
            table, vocabulary = Path(folder) / "table.csv", config.vocab_size
            write_generated_csv(table, num_fields=config.num_fields, vocab_size=vocabulary, rows=size, seed=config.seed)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(point_of, (config, axis, work, size, folder))


def point_of(config: BenchGrowthConfig, axis: str, work: str, size: int, folder: str) -> Point:
    """What the work takes here: CPU seconds, and the memory that it adds to this process."""
    names = {field.name for field in fields(BenchTrainConfig)} - {"evaluations", "choices"}
    bench = BenchTrainConfig(**{name: getattr(config, name) for name in names}, evaluations=0, choices={})
    if key := WORK[axis][1]:
        bench = replace(bench, **{key: size})
    if work == "prepare":
        before = resident_mb()
        _, seconds, peak = prepare_once(Path(folder), config.num_fields, MIN_COUNT)
        return Point(axis, work, size, seconds, peak - before)
    needed, most = needed_mb(bench, size if work == "evaluate" else 0), MARGIN * available_mb()
    if needed > most:
        said = f"refused: takes {needed:,.0f} MB, and {most:,.0f} may be taken, {MARGIN:.0%} of what is free here"
        return Point(axis, work, size, refused=said)
    return Point(axis, work, size, *(evaluation(bench, size) if work == "evaluate" else step(bench)))


def needed_mb(config: BenchTrainConfig, rows: int) -> float:
    """Memory of a training, and of so many rows, by their shapes."""
    schema, _ = generated_split(config.num_fields, config.vocab_size, 1, seed=config.seed)
    runtime = start_runtime(config.runtime, config.trainer, outputs=Path(config.outputs))
    size = Pace.of(config.trainer, LARGE_TABLE).batch_size
    trained = step_costs(
        lambda: network(config, schema), schema, config.trainer, runtime, optimizer=config.optimizer, batch_size=size
    )
    return trained.memory_mb + rows * config.num_fields * CELL_BYTES / 2**20


def step(config: BenchTrainConfig) -> tuple[float, float]:
    """CPU seconds of a training step, and the memory of the fit."""
    before = resident_mb()
    found = measured(config).step
    return found.busy_s, found.peak_mb - before


def evaluation(config: BenchTrainConfig, rows: int) -> tuple[float, float]:
    """CPU seconds of scoring rows that are in memory, with their metrics, and the memory that it adds."""
    schema, split = generated_split(config.num_fields, config.vocab_size, rows, seed=config.seed)
    model = network(config, schema)
    runtime = start_runtime(config.runtime, config.trainer, outputs=Path(config.outputs))  # forgets the peak so far
    before, begin = resident_mb(), time.process_time()
    evaluate(model.to(runtime.device), split, batch_size=config.trainer.eval_batch_size, runtime=runtime)
    return time.process_time() - begin, runtime.peak_memory_mb() - before
