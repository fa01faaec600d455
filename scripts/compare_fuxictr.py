"""Time training steps and evaluation of fieldctr and of FuxiCTR side by side, on equal made-up tables.

    python -m venv peer && peer/bin/pip install fuxictr
    python scripts/compare_fuxictr.py --peer peer/bin/python

FuxiCTR's own BaseModel trains, with its layers; its models are put together here as its model zoo does, because that
is not in its package. One torch thread; CPU seconds, because wall time on a shared machine means little; both take
turns, and the medians over rounds make the ratios. FuxiCTR's data loader is left out, ours is in the step. Each ratio
is given as shipped, and with FuxiCTR switched to the same matrix-product library.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import chain
from pathlib import Path
from typing import Any

FIELDS, ROWS, DIM, HIDDEN, BATCH, LR = 39, 1_000_000, 16, [400, 400, 400], 4096, 1e-3
MODELS = {
    "deepfm": ["model.hidden_dims=[400,400,400]"],
    "dcnv2": ["model.hidden_dims=[400,400,400]", "model.num_layers=3"],
}
WARM_UP, STEPS, EVAL_ROWS = 3, 12, 200_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="the Python of an environment that has fuxictr")
    parser.add_argument("--models", nargs="+", default=["deepfm"], choices=list(MODELS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--worker", nargs=3, metavar=("SIDE", "MODEL", "SETTING"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        side, model, setting = arguments.worker
        print(json.dumps((ours if side == "fieldctr" else theirs)(model, setting)))
        return
    if not arguments.peer:
        parser.error("--peer is needed: the Python of an environment that has fuxictr")
    print(f"{'model':8} {'side':10} {'setting':12} {'step CPU ms':>12} {'eval CPU s':>11}")
    for model in arguments.models:
        compare(model, arguments.peer, arguments.rounds)


def compare(model: str, peer: str, rounds: int) -> None:
    """All sides in turn, `rounds` times; print medians and ratios."""
    sides = [
        ("fuxictr", "shipped", peer),
        ("fuxictr", "onednn", peer),
        ("fieldctr", "fp32", sys.executable),
        ("fieldctr", "bf16", sys.executable),
    ]
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for _ in range(rounds):
        for side, setting, python in sides:
            call = [python, __file__, "--worker", side, model, setting]
            one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(call, capture_output=True, text=True, env=one_thread, check=False)
            if done.returncode:
                raise SystemExit(f"{side} {setting} failed:\n{done.stderr[-2000:]}")
            step, evaluation = json.loads(done.stdout.splitlines()[-1])
            found.setdefault((side, setting), []).append((step, evaluation))
    step, evaluation = ({key: statistics.median(x[i] for x in times) for key, times in found.items()} for i in (0, 1))
    for side, setting in found:
        print(f"{model:8} {side:10} {setting:12} {step[side, setting] * 1e3:12.0f} {evaluation[side, setting]:11.2f}")
    for setting in ("fp32", "bf16"):
        for base in ("shipped", "onednn"):
            ratios = [times["fuxictr", base] / times["fieldctr", setting] for times in (step, evaluation)]
            print(f"{model} {setting} against FuxiCTR ({base}): training {ratios[0]:.2f}x, evaluation {ratios[1]:.2f}x")


def ours(model: str, precision: str) -> tuple[float, float]:
    """Median CPU seconds of a training step, and those of an evaluation."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from fieldctr.catalog import conf_dir
    from fieldctr.config import OptimizerConfig, RuntimeConfig, TrainerConfig, parse
    from fieldctr.data.generated import generated_split
    from fieldctr.models.ctr_model import build_model
    from fieldctr.training.evaluate import evaluate
    from fieldctr.training.runtime import Runtime
    from fieldctr.training.trainer import Fitting, Trainer

    changes = [f"model={model}", *MODELS[model], "optimizer.embedding_l2=0", "optimizer.embedding_update=lazy"]
    changes += [f"trainer.batch_size={BATCH}", f"trainer.precision={precision}", "trainer.ema_decay=null"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        node: Any = OmegaConf.to_container(compose("bench_train", [*changes, "runtime.threads=1"]), resolve=True)
    settings = parse(TrainerConfig, node["trainer"], "trainer")
    optimizer = parse(OptimizerConfig, node["optimizer"], "optimizer")
    runtime = Runtime.start(
        parse(RuntimeConfig, node["runtime"], "runtime"),
        precision=settings.precision,
        deterministic=settings.deterministic,
        cache=Path("outputs/machine"),
    )
    schema, split = generated_split(FIELDS, ROWS, EVAL_ROWS, seed=1)
    network = build_model(schema, dim=DIM, model=node["model"], enhancer=None, seed=1)
    fitting = Fitting(Trainer(settings, optimizer, runtime, seed=1), network, split, split, folder=None)
    network.train()
    batches = chain.from_iterable(fitting.batches.shuffled(1, epoch, 0) for epoch in range(100))
    step = median_step(lambda: fitting.train_step(*next(batches)))
    begin = time.process_time()
    evaluate(network, split, batch_size=settings.eval_batch_size, runtime=runtime)
    return step, time.process_time() - begin


def theirs(model: str, setting: str) -> tuple[float, float]:
    """The same of FuxiCTR, on a table of the same shape."""
    import numpy as np
    import torch
    from fuxictr.features import FeatureMap

    torch.set_num_threads(1)
    if setting == "onednn":
        torch.set_float32_matmul_precision("medium")
    sizes = [max(2, ROWS // FIELDS)] * FIELDS
    with tempfile.TemporaryDirectory() as folder:
        features = FeatureMap("bench", folder)
        features.labels = ["label"]
        features.features = {
            f"f{i}": {"type": "categorical", "source": "", "vocab_size": size, "padding_idx": 0}
            for i, size in enumerate(sizes)
        }
        features.num_fields, features.total_features, features.input_length = FIELDS, sum(sizes), FIELDS
        network = assembled(model, features, folder)
        rng = np.random.default_rng(1)
        ids = np.minimum((rng.zipf(1.2, (EVAL_ROWS, FIELDS)) - 1) % sizes[0] + 1, sizes[0] - 1)
        label = (rng.random(EVAL_ROWS) < 0.25).astype(np.float32)
        rows = [slice(at, at + BATCH) for at in range(0, EVAL_ROWS, BATCH)]
        columns = [{**{f"f{i}": torch.from_numpy(ids[r, i].copy()) for i in range(FIELDS)}} for r in rows]
        batches = [{**c, "label": torch.from_numpy(label[r])} for c, r in zip(columns, rows, strict=True)]
        network._max_gradient_norm = 10.0
        network.train()
        stream = chain.from_iterable(batches for _ in range(100))
        step = median_step(lambda: network.train_step(next(stream)).item())
        begin = time.process_time()
        network.evaluate(batches, metrics=["AUC", "logloss"])
        return step, time.process_time() - begin


def assembled(model: str, features: Any, folder: str) -> Any:
    """DeepFM or the parallel DCNv2 out of FuxiCTR's layers, trained by its BaseModel."""
    import torch
    from fuxictr.pytorch.layers import CrossNetV2, FactorizationMachine, FeatureEmbedding, MLP_Block
    from fuxictr.pytorch.models import BaseModel
    from torch import nn

    class Peer(BaseModel):
        def __init__(self) -> None:
            super().__init__(features, model, gpu=-1, verbose=0, model_root=folder, metrics=["AUC", "logloss"])
            width = FIELDS * DIM
            self.embedding_layer = FeatureEmbedding(features, DIM)
            if model == "deepfm":
                self.fm = FactorizationMachine(features)
                self.mlp = MLP_Block(width, output_dim=1, hidden_units=HIDDEN, hidden_activations="ReLU")
            else:
                self.cross = CrossNetV2(width, 3)
                self.mlp = MLP_Block(width, output_dim=None, hidden_units=HIDDEN, hidden_activations="ReLU")
                self.last = nn.Linear(width + HIDDEN[-1], 1)
            self.compile("adam", "binary_crossentropy", LR)
            self.reset_parameters()

        def forward(self, inputs: Any) -> dict[str, Any]:
            taken = self.get_inputs(inputs)
            emb = self.embedding_layer(taken)
            if model == "deepfm":
                logit = self.fm(taken, emb) + self.mlp(emb.flatten(1))
            else:
                flat = emb.flatten(1)
                logit = self.last(torch.cat([self.cross(flat), self.mlp(flat)], dim=-1))
            return {"y_pred": self.output_activation(logit)}

    return Peer()


def median_step(action: Any) -> float:
    """Median CPU seconds of an action, after some that are not counted."""
    seconds = []
    for _ in range(WARM_UP + STEPS):
        begin = time.process_time()
        action()
        seconds.append(time.process_time() - begin)
    return statistics.median(seconds[WARM_UP:])


if __name__ == "__main__":
    main()
