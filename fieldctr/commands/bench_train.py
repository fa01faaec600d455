"""`fieldctr bench train`: what one training step costs here, and which share of the machine's peak it reaches."""

import statistics
import time
from dataclasses import dataclass, replace
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Annotated, Any

from fieldctr.commands.entity_vectors import drawn_texts
from fieldctr.commands.field_vectors import drawn
from fieldctr.commands.machine import start_runtime
from fieldctr.commands.value_vectors import drawn_values
from fieldctr.config import Between, OptimizerConfig, Positive, RuntimeConfig, TrainerConfig, choice, parse
from fieldctr.data.generated import generated_split
from fieldctr.models.ctr_model import build_model
from fieldctr.nn.flops import FlopCounter
from fieldctr.training.pace import Pace
from fieldctr.training.trainer import Fitting, Trainer

LARGE_TABLE = 10**9  # rows, of which trainer.batch_size=auto takes its largest batch
WARM_UP = 5  # steps: allocations, first touch of the moments


@dataclass(frozen=True)
class BenchTrainConfig:
    """The root of `fieldctr bench train`."""

    data_root: str
    outputs: str
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
    choices: dict[str, Any]


def main(node: dict[str, Any]) -> None:
    """Print the medians: they stand a busy machine, means do not."""
    config = parse(BenchTrainConfig, node, "")
    settings, runtime = config.trainer, start_runtime(config.runtime, config.trainer, outputs=Path(config.outputs))
    peak = runtime.matmul_gflops(size=1024, repeats=20)
    batch_size = Pace.of(settings, LARGE_TABLE).batch_size
    settings = replace(settings, batch_size=batch_size)
    rows = min(WARM_UP + config.steps, 50) * batch_size
    schema, split = generated_split(config.num_fields, config.vocab_size, rows, seed=config.seed)
    model = build_model(
        schema,
        dim=config.embedding_dim,
        model=config.model,
        enhancer=config.enhancer,
        seed=config.seed,
        field_embeddings=drawn(config.num_fields),
        text_vectors=drawn_texts(schema),
        value_vectors=drawn_values(schema),
    )
    fitting = Fitting(Trainer(settings, config.optimizer, runtime, seed=config.seed), model, split, split, folder=None)
    seconds, cpu_seconds, gflop = measure(fitting, config.steps)
    rate = batch_size / seconds
    busy = seconds if runtime.device.type == "cuda" else cpu_seconds / runtime.threads
    name = choice(config.choices, "model")
    print(
        f"{name}, batch {batch_size}, {config.num_fields} fields, {schema.vocab_size:,} rows, "
        f"dim {config.embedding_dim}; {runtime.describe()}; median of {config.steps} steps\n"
        f"  {seconds * 1e3:9.1f} ms per step, {cpu_seconds * 1e3:.1f} CPU ms\n"
        f"  {rate:9,.0f} samples/s\n"
        f"  {gflop:9.2f} GFLOP of matrix products per step: {gflop / busy / peak:.0%} of the measured peak, "
        f"{peak:.0f} GFLOP/s a {'GPU' if runtime.device.type == 'cuda' else 'thread'}\n"
        f"  {runtime.peak_memory_mb():9,.0f} MB peak memory"
    )


def measure(fitting: Fitting, steps: int) -> tuple[float, float, float]:
    """Median wall seconds and CPU seconds of a step, and the GFLOP of its matrix products."""
    fitting.model.train()
    batches = chain.from_iterable(fitting.batches.shuffled(fitting.seed, epoch, 0) for epoch in repeat(0))
    with FlopCounter() as counter:
        fitting.train_step(*next(batches))
    wall, cpu = [], []
    for batch in islice(batches, WARM_UP + steps):
        fitting.runtime.synchronize()
        begin, cpu_begin = time.perf_counter(), time.process_time()
        fitting.train_step(*batch)
        fitting.runtime.synchronize()
        wall.append(time.perf_counter() - begin)
        cpu.append(time.process_time() - cpu_begin)
    return statistics.median(wall[WARM_UP:]), statistics.median(cpu[WARM_UP:]), counter.flops / 1e9
