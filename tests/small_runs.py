"""Runs of enhancers that read texts, so small that a test can have several."""

from collections.abc import Callable
from pathlib import Path

from fieldctr import FinishedRun, compose, train
from fieldctr.config import RuntimeConfig

SMALL = [
    *("dataset.source.rows=1500", "embedding_dim=4", "tracker=none", "runtime.threads=1", "runtime.matmul=mkl"),
    *("trainer.batch_size=256", "trainer.max_epochs=1", "trainer.evals_per_epoch=1", "encoder=tiny_llama"),
]
CPU = RuntimeConfig(device="cpu", threads=1, matmul="mkl")
Train = Callable[..., FinishedRun]


def trainer_in(home: Path, enhancer: str) -> Train:
    """fit(folder, word ...): a run of FM and the enhancer with these words of a call, which win."""

    def fit(folder: str, *words: str) -> FinishedRun:
        given = {word.partition("=")[0] for word in words}
        chosen = [f"{key}={value}" for key, value in {"model": "fm", "enhancer": enhancer}.items() if key not in given]
        return train(compose("train", [*SMALL, *chosen, *words, f"outputs={home}/o"]), folder=home / folder)

    return fit
