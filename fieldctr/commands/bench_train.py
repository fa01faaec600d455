"""`fieldctr bench train`: what a training step and an evaluation cost here, and how near they come to the limit."""

from dataclasses import dataclass, replace
from itertools import chain, repeat
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from fieldctr.commands.entity_vectors import drawn_texts
from fieldctr.commands.field_vectors import drawn
from fieldctr.commands.machine import start_runtime
from fieldctr.commands.value_vectors import drawn_values
from fieldctr.config import Between, Count, OptimizerConfig, Positive, RuntimeConfig, TrainerConfig, choice, parse
from fieldctr.data.generated import generated_split
from fieldctr.models.ctr_model import CTRModel, build_model
from fieldctr.schema import Schema
from fieldctr.training.limits import WARM_UP, Share, evaluation_share, step_share
from fieldctr.training.pace import Pace
from fieldctr.training.runtime import Runtime
from fieldctr.training.trainer import Fitting, Trainer

LARGE_TABLE = 10**9  # rows, of which trainer.batch_size=auto takes its largest batch


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
    evaluations: Count
    seed: Annotated[int, Between(0)]
    encoder: dict[str, Any]  # not read
    choices: dict[str, Any]


class Measured(NamedTuple):
    """What `bench train` found."""

    runtime: Runtime
    peak_gflops: float  # a thread, or of the GPU
    table_rows: int
    batch_size: int
    rows: int  # of an evaluation
    step: Share
    evaluation: Share | None


def main(node: dict[str, Any]) -> None:
    """Print the medians: they stand a busy machine, means do not."""
    config = parse(BenchTrainConfig, node, "")
    found = measured(config)
    step, on_gpu = found.step, found.runtime.device.type == "cuda"
    second, unit, units = ("GPU", "GPU", 1) if on_gpu else ("CPU", "thread", found.runtime.threads)
    share_of_peak = step.gflop / (step.busy_s / units) / found.peak_gflops
    print(
        f"{choice(config.choices, 'model')}, batch {found.batch_size}, {config.num_fields} fields, "
        f"{found.table_rows:,} rows, dim {config.embedding_dim}; {found.runtime.describe()}; "
        f"median of {config.steps} steps\n"
        f"  {step.wall_s * 1e3:9.1f} ms per step, {step.busy_s * 1e3:.1f} {second} ms\n"
        f"  {found.batch_size / step.wall_s:9,.0f} samples/s\n"
        f"  {step.gflop:9.2f} GFLOP of matrix products per step: {share_of_peak:.0%} of the measured peak, "
        f"{found.peak_gflops:.0f} GFLOP/s a {unit}\n"
        f"  {overhead(step)}\n"
        f"  {step.peak_mb:9,.0f} MB peak memory"
    )
    if found.evaluation:
        print(
            f"  {found.evaluation.busy_s:9.2f} {second} s an evaluation of {found.rows:,} rows\n"
            f"  {overhead(found.evaluation)}"
        )


def overhead(share: Share) -> str:
    """One line: how many times its products."""
    return f"{share.overhead:9.2f} times its own matrix products, which alone take {share.products_s * 1e3:.1f} ms"


def measured(config: BenchTrainConfig) -> Measured:
    """Build a model and a table for it, and measure."""
    runtime = start_runtime(config.runtime, config.trainer, outputs=Path(config.outputs))
    peak = runtime.matmul_gflops(size=1024, repeats=20)
    batch_size = Pace.of(config.trainer, LARGE_TABLE).batch_size
    settings = replace(config.trainer, batch_size=batch_size)
    rows = min(WARM_UP + config.steps, 50) * batch_size
    schema, split = generated_split(config.num_fields, config.vocab_size, rows, seed=config.seed)
    trainer = Trainer(settings, config.optimizer, runtime, seed=config.seed)
    fitting = Fitting(trainer, network(config, schema).to(runtime.device), split, split, folder=None)
    batches = chain.from_iterable(fitting.batches.shuffled(config.seed, epoch, 0) for epoch in repeat(0))
    return Measured(
        runtime,
        peak,
        schema.vocab_size,
        batch_size,
        rows,
        step_share(fitting, batches, config.steps),
        evaluation_share(fitting, config.evaluations) if config.evaluations else None,
    )


def network(config: BenchTrainConfig, schema: Schema) -> CTRModel:
    """The model, with vectors of texts that say nothing."""
    return build_model(
        schema,
        dim=config.embedding_dim,
        model=config.model,
        enhancer=config.enhancer,
        seed=config.seed,
        field_embeddings=drawn(config.num_fields),
        text_vectors=drawn_texts(schema),
        value_vectors=drawn_values(schema),
    )
