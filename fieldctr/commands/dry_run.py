"""`fieldctr train trainer.dry_run=true`: what a training would take, without training.

Parameters, FLOPs and memory are counted from shapes. The time comes from two steps where the model fits into memory,
else from the FLOPs and the machine's matrix-product peak.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from fieldctr.commands.entity_vectors import drawn_texts
from fieldctr.commands.field_vectors import drawn
from fieldctr.commands.llm_demand import language_model_lines
from fieldctr.commands.machine import start_runtime
from fieldctr.commands.value_vectors import drawn_values
from fieldctr.config import TrainConfig
from fieldctr.data.dataset import Dataset
from fieldctr.data.prepare import prepared
from fieldctr.memory import available_mb
from fieldctr.models.ctr_model import CTRModel, build_model, refuse_misfits
from fieldctr.training.costs import Costs, step_costs
from fieldctr.training.pace import Pace
from fieldctr.training.runtime import Runtime
from fieldctr.training.torchrec_pair import refuse_misfits as refuse_shards
from fieldctr.training.trainer import Fitting, Trainer

PATIENCE_S = 6.0  # a longer step is measured on fewer samples
MARGIN = 0.8  # of the free memory that a measurement may take


def dry_run(config: TrainConfig) -> str:
    """The estimate, in words."""
    named = f"model={config.choice('model')} and enhancer={config.choice('enhancer')}"
    refuse_misfits(config.model, config.enhancer, named=named)
    refuse_shards(config.embedding, config.trainer, config.optimizer, 1)
    outputs = Path(config.outputs)
    runtime = start_runtime(config.runtime, config.trainer, outputs=outputs)
    dataset = prepared(config.dataset, data_dir=outputs / "data", schema=config.schema)

    def build() -> CTRModel:
        return build_model(
            dataset.schema,
            dim=config.embedding_dim,
            model=config.model,
            enhancer=config.enhancer,
            seed=config.seed,
            field_embeddings=drawn(dataset.schema.num_fields),
            text_vectors=drawn_texts(dataset.schema),
            value_vectors=drawn_values(dataset.schema),
        )

    batch_size = Pace.of(config.trainer, len(dataset.train)).batch_size
    costs = step_costs(
        build, dataset.schema, config.trainer, runtime, optimizer=config.optimizer, batch_size=batch_size
    )
    size, free = costs.parameters, free_mb(runtime)
    fits = costs.memory_mb < MARGIN * free
    time_spent = spent(config, dataset, build, costs, runtime, batch_size=batch_size, fits=fits)
    return "\n".join(
        [
            f"{config.choice('model')} on {dataset.name}, {dataset.schema.num_fields} fields, batch {batch_size}; "
            f"{runtime.describe()}. A dry run: nothing is trained",
            f"  parameters  {size['dense']:,} dense + {size['embedding']:,} embedding",
            f"  FLOPs       {scaled(costs.flops / batch_size)} per sample in training, "
            f"{scaled(costs.forward_flops / batch_size)} in a forward pass, of matrix products",
            f"  memory      {costs.memory_mb:,.0f} MB: {costs.state_mb:,.0f} for weights, moments and averages, "
            f"{costs.step_mb:,.0f} at most for activations and gradients; {free:,.0f} MB are free here",
            f"  time        {time_spent}",
            *language_model_lines(config, dataset),
        ]
    )


def spent(
    config: TrainConfig,
    dataset: Dataset,
    build: Callable[[], CTRModel],
    costs: Costs,
    runtime: Runtime,
    *,
    batch_size: int,
    fits: bool,
) -> str:
    """The time of a million samples, and how it was found."""
    gflops = runtime.matmul_gflops(size=1024, repeats=20) * (runtime.threads if runtime.device.type == "cpu" else 1)
    expected = costs.flops / gflops / 1e9  # seconds a step, at the peak
    if not fits:
        text = f"at least {duration(expected / batch_size * 1e6)} per million samples: the model does not fit here, "
        return f"{text}so this is its FLOPs at the machine's measured peak, {gflops:,.0f} GFLOP/s of matrix products"
    fewer = max(1, min(batch_size, len(dataset.train), int(batch_size * PATIENCE_S / max(expected, 1e-9))))
    seconds = second_step(config, dataset, build, runtime, batch_size=fewer)
    peak = f"{costs.flops / batch_size * fewer / seconds / 1e9 / gflops:.0%} of the peak of matrix products"
    text = f"{duration(seconds / fewer * 1e6)} per million samples, by the second of two steps of {fewer:,} samples"
    return f"{text}: {seconds * 1e3:,.0f} ms, {peak}. An epoch has {len(dataset.train):,} samples"


def second_step(
    config: TrainConfig, dataset: Dataset, build: Callable[[], CTRModel], runtime: Runtime, *, batch_size: int
) -> float:
    """Seconds of the second step, as the first one allocates; on a CPU those of its own work, whoever else is there."""
    settings = replace(config.trainer, batch_size=batch_size, compile=False)
    trainer = Trainer(settings, config.optimizer, runtime, seed=config.seed)
    fitting = Fitting(trainer, build().to(runtime.device), dataset.train, dataset.valid, folder=None)
    fitting.model.train()
    batch = next(fitting.batches.shuffled(config.seed, 0, 0))
    fitting.train_step(*batch)
    clock, share = (time.perf_counter, 1) if runtime.device.type == "cuda" else (time.process_time, runtime.threads)
    runtime.synchronize()
    begin = clock()
    fitting.train_step(*batch)
    runtime.synchronize()
    return (clock() - begin) / share


def free_mb(runtime: Runtime) -> float:
    """Memory that is free where the model would be."""
    if runtime.device.type == "cuda":
        return torch.cuda.mem_get_info(runtime.device)[0] / 2**20
    return available_mb()


def scaled(count: float) -> str:
    """A count of operations as a text of three digits: '12.3 GFLOPs'."""
    for unit in ("", "K", "M", "G"):
        if count < 1000:
            return f"{count:.3g} {unit}FLOPs"
        count /= 1000
    return f"{count:.3g} TFLOPs"


def duration(seconds: float) -> str:
    """'42 s', '3.1 min' or '5.2 h'."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"
