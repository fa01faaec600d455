"""`fieldctr bench serve run=...`: how long a finished run's model takes to answer, folded and as it was trained."""

import itertools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fieldctr.commands.trained import Trained, load_trained
from fieldctr.config import Positive, RuntimeConfig, parse
from fieldctr.data.batches import Batches
from fieldctr.inputs import Inputs
from fieldctr.training.runtime import Runtime

WARM_UP = 10  # answers that are not counted


@dataclass(frozen=True)
class BenchServeConfig:
    """The root of `fieldctr bench serve`."""

    data_root: str
    outputs: str
    run: str
    batch_sizes: list[Positive]
    answers: Positive
    runtime: RuntimeConfig


def main(node: dict[str, Any]) -> None:
    """Print a line for each form of the model and each batch size: the same rows of valid for all."""
    config = parse(BenchServeConfig, node, "")
    run, outputs = Path(config.run), Path(config.outputs)
    for form in ("folded", "unfolded"):
        folded = form == "folded"
        trained = load_trained(run, outputs=outputs, runtime=config.runtime, splits=["valid"], folded=folded)
        if folded:
            print(f"{trained.result['model']} on {trained.result['dataset']}, {trained.runtime.describe()}")
        for size in config.batch_sizes:
            print(f"  {form:8} batch {size:5}: {answered(trained, size, config.answers)}")


def answered(trained: Trained, size: int, answers: int) -> str:
    """Percentiles of the milliseconds of an answer about `size` rows, and rows per second."""
    batches = Batches(trained.dataset.valid, batch_size=size, device=trained.runtime.device).ordered()
    rows = [batch.inputs for batch in itertools.islice(batches, answers) if len(batch.label) == size]
    if not rows:
        return "valid has fewer rows"
    ms = 1e3 * seconds(trained.model, rows, answers, trained.runtime)
    p50, p95, p99 = np.percentile(ms, (50, 95, 99))
    return f"p50 {p50:.3f}, p95 {p95:.3f}, p99 {p99:.3f} ms; {size / np.mean(ms) * 1e3:,.0f} rows/s"


def seconds(model: nn.Module, rows: list[Inputs], answers: int, runtime: Runtime) -> np.ndarray:
    """Wall seconds of each answer (answers,), of encoded rows that are on the device to logits that are there."""
    taken = []
    with torch.inference_mode(), runtime.autocast():
        for inputs in itertools.islice(itertools.cycle(rows), WARM_UP + answers):
            runtime.synchronize()
            begin = time.perf_counter()
            model(inputs)
            runtime.synchronize()
            taken.append(time.perf_counter() - begin)
    return np.array(taken[WARM_UP:])
