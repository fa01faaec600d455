"""A planted click model in memory and a small model that can learn it; as a program: resumable fits to be killed.

For each line '<folder> <embedding update> <seconds>' on stdin the program forks a fit that resumes what is in the
folder and writes folder/weights.safetensors; it prints its exit status. Unless <seconds> is 0, the kernel ends the fit
so long after its first checkpoint, wherever it is then.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fieldctr.config import OptimizerConfig, RuntimeConfig, TrainerConfig
from fieldctr.data.dataset import Split
from fieldctr.inputs import Inputs
from fieldctr.nn.embedding import EmbeddingTable
from fieldctr.schema import Field, Schema
from fieldctr.training import checkpoint
from fieldctr.training.runtime import Runtime
from fieldctr.training.trainer import Trainer

VOCABULARY = (40, 12, 7)


class Output(NamedTuple):
    logit: Tensor
    penalty: Tensor


class Tiny(nn.Module):
    """Tables, a dropped-out and batch-normed MLP: everything that has a state or draws random numbers."""

    def __init__(self, seed: int, *, dim: int = 4, dropout: float = 0.2) -> None:
        super().__init__()
        torch.manual_seed(seed)
        schema = Schema(tuple(Field(f"f{i}", size) for i, size in enumerate(VOCABULARY)))
        self.register_buffer("offsets", torch.tensor(schema.row_offsets))
        self.table, self.linear = (
            EmbeddingTable(schema.vocab_size, width, init_std=std) for width, std in ((dim, 0.1), (1, 0.0))
        )
        width = dim * len(VOCABULARY)
        self.backbone = nn.Sequential(
            nn.Linear(width, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 1)
        )

    def forward(self, inputs: Inputs) -> Output:
        rows = inputs.ids + self.offsets
        deep = self.backbone(self.table(rows).flatten(1))  # B,1
        return Output((deep + self.linear(rows).sum(1)).squeeze(1), deep.new_zeros(()))


def split(rows: int, seed: int) -> Split:
    """Clicks that depend on fields 0 and 1 and on the pair (1, 2)."""
    effects, generator = np.random.default_rng(0), np.random.default_rng(seed)
    first, second = effects.normal(size=VOCABULARY[0]), effects.normal(size=VOCABULARY[1:])
    ids = np.stack([generator.integers(0, size, rows) for size in VOCABULARY], axis=1).astype(np.int32)
    logit = first[ids[:, 0]] + second[ids[:, 1], ids[:, 2]]
    pctr = 1 / (1 + np.exp(-logit))
    label = (generator.random(rows) < pctr).astype(np.float32)
    return Split(ids, label, group=ids[:, 0] + 1, pctr=pctr.astype(np.float32))


def trainer_config(**changes: Any) -> TrainerConfig:
    plain: dict[str, Any] = {
        "max_epochs": 3, "batch_size": 64, "eval_batch_size": 512, "evals_per_epoch": 2, "monitor": "auc",
        "patience": 9, "min_delta": 0.0, "lr_decay": 0.5, "min_lr": 1e-5, "clip_norm": 1.0, "ema_decay": 0.9,
        "precision": "fp32", "activation_checkpointing": False, "compile": False, "dry_run": False,
        "deterministic": True, "checkpoint_every_s": 0.0, "extra_metrics": [],
    }  # fmt: skip
    return TrainerConfig(**plain | changes)


def optimizer_config(**changes: Any) -> OptimizerConfig:
    plain: dict[str, Any] = {
        "lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8,
        "embedding_l2": 1e-5, "dense_l2": 1e-6, "embedding_update": "dense",
    }  # fmt: skip
    return OptimizerConfig(**plain | changes)


def cpu_runtime(cache: Path) -> Runtime:
    config = RuntimeConfig(device="cpu", threads=1, matmul="mkl")
    return Runtime.start(config, precision="fp32", deterministic=True, cache=cache)


def die_after_the_first_checkpoint(seconds: float) -> None:
    """SIGALRM ends a process as SIGKILL does: nothing of its own runs any more."""
    save = checkpoint.save

    def saving(*given: Any, **named: Any) -> None:
        save(*given, **named)
        checkpoint.save = save
        signal.setitimer(signal.ITIMER_REAL, seconds)

    checkpoint.save = saving


def main(folder: Path, update: str) -> None:
    runtime, model = cpu_runtime(folder / "cache"), Tiny(seed=1)
    optimizer = optimizer_config(embedding_update=update, embedding_l2=0.0)
    trainer = Trainer(trainer_config(max_epochs=6), optimizer, runtime, seed=5)
    trainer.fit(model, split(1500, 1), split(400, 2), folder=folder, resume=True)
    save_file(model.state_dict(), folder / "weights.safetensors")


def serve() -> None:
    """Importing torch takes seconds: do it once, and fork."""
    for line in sys.stdin:
        folder, update, seconds = line.split()
        child = os.fork()
        if child == 0:
            if float(seconds):
                die_after_the_first_checkpoint(float(seconds))
            main(Path(folder), update)
            os._exit(0)
        print(os.waitpid(child, 0)[1], flush=True)


if __name__ == "__main__":
    serve()
