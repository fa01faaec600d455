"""`fieldctr bench llm`: seconds and memory of each way to use a language model, against rows, fields and values."""

import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fieldctr.commands.field_vectors import settled
from fieldctr.config import EncoderConfig, Positive, RuntimeConfig, parse
from fieldctr.disk import write_json
from fieldctr.errors import UserError
from fieldctr.llm.efficiency import METHODS, READ_ROWS, Spent, Table, spent
from fieldctr.training.runtime import Runtime

NUMBERS = ("seconds", "peak_mb")  # of a point


@dataclass(frozen=True)
class BenchLlmConfig:
    """The root of `fieldctr bench llm`."""

    data_root: str
    outputs: str
    encoder: dict[str, Any]
    runtime: RuntimeConfig
    rows: list[Positive]
    fields: list[Positive]
    values: list[Positive]
    measured_rows: Positive
    rows_per_entity: Positive
    folder: str


@dataclass(frozen=True)
class Point:
    """The cost of one method at one size."""

    method: str
    against: str  # rows | fields | values
    size: int
    seconds: float
    peak_mb: float
    measured: bool  # else it is of the slope


def main(node: dict[str, Any]) -> None:
    """Measure each size in a process of its own; print the table, and leave it with a picture in `folder`."""
    config = parse(BenchLlmConfig, node, "")
    check(config)
    outputs, folder = Path(config.outputs), Path(config.folder)
    runtime = Runtime.start(config.runtime, precision="fp32", deterministic=True, cache=outputs / "machine")
    encoder = settled(parse(EncoderConfig, config.encoder, "encoder"), runtime.device)
    if encoder.kind == "random":
        raise UserError("encoder.kind=random reads nothing, so there is nothing to measure. Take encoder=minilm")
    points: list[Point] = []
    device, models = str(runtime.device), outputs / "models"
    print(f"{'':20}{''.join(f'{name:>24}' for name in METHODS)}")
    for against in ("rows", "fields", "values"):
        for size, table in tables(config, against):
            methods = READ_ROWS if against == "rows" and size > min(config.rows) else METHODS
            job = Job(encoder, table, methods, config.rows_per_entity, device, runtime.threads, models)
            found = in_own_process(job)
            points += [Point(name, against, size, one.seconds, one.peak_mb, True) for name, one in found.items()]
            if against == "rows":
                points += [extended(points, name, size) for name in METHODS if name not in methods]
            print(line(points, against, size), flush=True)
        for size in sorted(config.rows) if against == "rows" else ():
            if size > config.measured_rows:
                points += [extended(points, name, size) for name in METHODS]
                print(line(points, against, size), flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    clock = "s" if runtime.device.type == "cuda" else "CPU s"
    about = {"encoder": asdict(encoder), "clock": clock, "runtime": runtime.describe()}
    write_json(folder / "curves.json", {**about, "points": [asdict(point) for point in points]})
    from fieldctr.analysis.cost_curves import draw

    draw([asdict(point) for point in points], METHODS, clock, folder / "curves")
    print(
        f"{clock}, and MB at most of the process. ~: not measured but extrapolated, with the slope between the two "
        f"largest tables that were read; {runtime.describe()}. In {folder}, with a picture: curves.png"
    )


def check(config: BenchLlmConfig) -> None:
    """UserError for lists that leave nothing to measure, or too little for a slope."""
    for name in ("rows", "fields", "values"):
        if not getattr(config, name):
            raise UserError(f"{name}=[] is not allowed: expected one size at least")
    read = [rows for rows in set(config.rows) if rows <= config.measured_rows]
    if len(read) < min(2, len(set(config.rows))):
        raise UserError(
            f"measured_rows={config.measured_rows}: the slope needs two of rows={config.rows} that are read. Give "
            "smaller ones, or a larger measured_rows"
        )


def tables(config: BenchLlmConfig, against: str) -> Iterator[tuple[int, Table]]:
    """Each size of a list that is to be measured, with a table that is the smallest in all else."""
    for size in sorted(getattr(config, against)):
        if against == "rows" and size > config.measured_rows:
            continue
        smallest = {name: min(getattr(config, name)) for name in ("rows", "fields", "values")}
        yield size, Table(**smallest | {against: size})


class Job(NamedTuple):
    """What a process of its own is to measure."""

    encoder: EncoderConfig
    table: Table
    methods: Sequence[str]
    rows_per_entity: int
    device: str
    threads: int
    converted: Path


def in_own_process(job: Job) -> dict[str, Spent]:
    """What the methods take in a process that has done nothing else."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(once, (job,))


def once(job: Job) -> dict[str, Spent]:
    torch.set_num_threads(job.threads)
    return spent(
        job.encoder,
        job.table,
        job.methods,
        rows_per_entity=job.rows_per_entity,
        device=torch.device(job.device),
        converted=job.converted,
    )


def extended(points: Sequence[Point], method: str, rows: int) -> Point:
    """The cost of more rows: the line through the two largest tables that were read, or what it is without rows."""
    known = [p for p in points if (p.method, p.against, p.measured) == (method, "rows", True)]
    if method not in READ_ROWS:
        return replace(known[0], size=rows)
    before, last = sorted(known, key=lambda point: point.size)[-2:]
    steps = (rows - last.size) / (last.size - before.size)
    reach = {key: getattr(last, key) + max(0.0, getattr(last, key) - getattr(before, key)) * steps for key in NUMBERS}
    return Point(method, "rows", rows, **reach, measured=False)


def line(points: Sequence[Point], against: str, size: int) -> str:
    """One line of the table: every method at this size."""
    at = {point.method: point for point in points if (point.against, point.size) == (against, size)}
    cells = [cell(at[name]) for name in METHODS]
    return f"{against:8}{size:>12,}{''.join(f'{text:>24}' for text in cells)}"


def cell(point: Point) -> str:
    """Seconds and memory of one method at one size."""
    seconds = f"{point.seconds:,.0f}" if point.seconds >= 100 else f"{point.seconds:.3g}"
    return f"{'' if point.measured else '~'}{seconds} s {point.peak_mb:,.0f} MB"
