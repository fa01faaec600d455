"""What two ranks with tables in shards do in the tests of training/torchrec_tables.py, and one process with plain ones.

As a program it is a rank: it leaves a fit in FOLDER, and writes FOLDER/rank<number>.pt.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from two_ranks import ended_by

from fieldctr.config import EmbeddingConfig
from fieldctr.data.dataset import Split
from fieldctr.errors import UserError
from fieldctr.models.ctr_model import CTRModel, build_model
from fieldctr.schema import Field, Schema
from fieldctr.training import optim
from fieldctr.training.ranks import joined
from fieldctr.training.row_adagrad import RowAdagrad
from fieldctr.training.runtime import Runtime
from fieldctr.training.trainer import Fitting, Trainer

WAYS = ("table_wise", "row_wise", "column_wise", "auto")
DIM, BATCH, STEPS = 8, 16, 52  # of two epochs of 26, whose last batches have one row: none for rank 1
LOWER = 20  # the step from which the rate is a third
SCHEMA = Schema(
    (
        Field("user", 200),
        Field("seen", 60, width=3, shares="item"),
        Field("age", 2, numeric=True),
        Field("item", 60),
        Field("hour", 5),
    )
)


def split(rows: int, seed: int) -> Split:
    """Clicks that depend on the item and on what was seen."""
    effects, generator = np.random.default_rng(0), np.random.default_rng(seed)
    of_item, of_seen = effects.normal(size=60), effects.normal(size=60)
    user, item, hour = (generator.integers(0, size, rows) for size in (200, 60, 5))
    seen = generator.integers(1, 60, (rows, 3)) * (np.arange(3) < generator.integers(0, 4, rows)[:, None])
    age = generator.integers(0, 2, rows)
    ids = np.column_stack([user, seen, age, item, hour]).astype(np.int32)
    logit = of_item[item] + of_seen[seen[:, 0]]
    label = (generator.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    values = generator.normal(size=(rows, 1)).astype(np.float32) * age[:, None]
    return Split(ids, label, values=values.astype(np.float32))


def data() -> tuple[CTRModel, Split, Split]:
    node = {"_target_": "fieldctr.models.deepfm.DeepFM", "embedding_std": 0.1, "hidden_dims": [16], "dropout": 0.0}
    model = build_model(SCHEMA, dim=DIM, model={**node, "batch_norm": False}, enhancer=None, seed=1)
    return model, split(25 * BATCH + 1, 1), split(600, 2)


def trainer(planted: ModuleType, runtime: Runtime, way: str | None) -> Trainer:
    """With tables in shards of this way, or plain ones."""
    settings = planted.trainer_config(
        max_epochs=2, evals_per_epoch=2, batch_size=BATCH, eval_batch_size=100,
        checkpoint_every_s=0.02,  # never at the same step by the clocks of two ranks
        clip_norm=None, ema_decay=None,
    )  # fmt: skip
    optimizer = planted.optimizer_config(embedding_rule="rowwise_adagrad", embedding_lr_scale=5.0, embedding_l2=1e-3)
    embedding = EmbeddingConfig(engine="torchrec", sharding=way) if way else EmbeddingConfig()  # ty: ignore
    return Trainer(settings, optimizer, runtime, seed=3, embedding=embedding)


def steps(planted: ModuleType, runtime: Runtime, way: str | None) -> dict[str, Any]:
    """The loss of each step, and the weights and the optimizer's state after the last."""
    fitting = Fitting(trainer(planted, runtime, way), *data(), folder=None)
    losses = [0.0]
    for epoch in range(STEPS // fitting.steps_per_epoch):
        for batch in fitting.batches.shuffled(3, epoch, part=fitting.ranks.block):
            if fitting.state.step == LOWER:
                fitting.state.lr /= 3
            fitting.train_step(*batch)
            losses.append(float(fitting.loss_sum))
    with fitting.optimizer.whole():
        weights = {name: tensor.clone() for name, tensor in fitting.model.state_dict().items()}
        state = {name: tensor.clone() for name, tensor in fitting.optimizer.tensors().items()}
    found = {"losses": torch.tensor(losses).diff(), "weights": weights, "state": state}
    if way:
        found["here"] = sorted(fitting.optimizer.sharded)
        found["shapes"] = [
            tuple(part.shape) for table in fitting.optimizer.sharded.values() for *_, part, _ in table.pieces()
        ]
    fitting.optimizer.close()
    return found


def fit(planted: ModuleType, runtime: Runtime, way: str | None, folder: Path, *, resume: bool = False) -> list[float]:
    """The AUCs of a whole fit, or of the rest of one."""
    done = trainer(planted, runtime, way).fit(*data(), folder=folder, resume=resume)
    return [record["valid/auc"] for record in done.history]


def interrupted(planted: ModuleType, runtime: Runtime, way: str | None, folder: Path) -> str:
    """A fit of which the last rank gets a signal in its sixth step; what it ended by."""
    hit = runtime.ranks.rank == runtime.ranks.world - 1
    return ended_by(lambda: fit(planted, runtime, way, folder), at=6 if hit else None)


class TwoColumnShards(RowAdagrad):
    """Row-wise Adagrad of a plain table as two halves of its columns have it."""

    @torch.no_grad()
    def update(self, lr: float, gradient: Tensor | None, scale: Tensor | None) -> None:
        width = self.table.weight.shape[1]
        if width == 1:
            super().update(lr, gradient, scale)
            return
        assert gradient is not None
        index, table = self.index, self.table.weight.detach()
        if not hasattr(self, "halves"):
            self.halves = [torch.zeros(len(table)) for _ in range(2)]
        each = gradient + self.config.embedding_l2 * table[index]
        for half, columns in zip(self.halves, torch.arange(width).chunk(2), strict=True):
            half[index] += each[:, columns].square().mean(1)
            rate = lr * self.lr_scale / (half[index].sqrt() + self.config.eps)
            table[:, columns] = table[:, columns].index_add(0, index, -rate[:, None] * each[:, columns])
        self.square_sum.copy_(sum(self.halves) / 2)
        self.table.weight.grad = None


@contextmanager
def columns_in_shards() -> Iterator[None]:
    """Inside, plain tables move as their columns do in shards."""
    plain, optim.RowAdagrad = optim.RowAdagrad, TwoColumnShards
    try:
        yield
    finally:
        optim.RowAdagrad = plain


def refused(planted: ModuleType, runtime: Runtime) -> str:
    """What a model is told whose tables no shard can hold."""
    node = {"_target_": "fieldctr.models.lr.LR"}
    model = build_model(SCHEMA, dim=DIM, model=node, enhancer=None, seed=1)
    try:
        Fitting(trainer(planted, runtime, "auto"), model, *data()[1:], folder=None)
    except UserError as error:
        return str(error)
    return ""


def main(folder: Path) -> None:
    import planted  # beside this file, whose folder is the path of a program

    found = dict[str, Any]()
    with joined("auto") as ranks:
        runtime = replace(planted.cpu_runtime(folder / "machine"), ranks=ranks)
        for way in WAYS:
            found[way] = steps(planted, runtime, way)
        found["interrupted"] = interrupted(planted, runtime, "row_wise", folder / "interrupted")
        found["resumed"] = fit(planted, runtime, "table_wise", folder / "alone", resume=True)
        found["refused"] = refused(planted, runtime)
        torch.save(found, folder / f"rank{ranks.rank}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
