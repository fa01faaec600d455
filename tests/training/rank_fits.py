"""What two ranks do in the tests of training/ranks.py, and what one process does beside them.

As a program it is a rank: it leaves fits in FOLDER, goes on with those there, and writes FOLDER/rank<number>.json.
"""

import hashlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn
from two_ranks import ended_by

from fieldctr.data.dataset import Split
from fieldctr.errors import UserError
from fieldctr.launched import LostRankError
from fieldctr.training.ranks import Ranks, joined
from fieldctr.training.runtime import Runtime
from fieldctr.training.trainer import Fitting, Trainer

UPDATES = ("dense", "lazy")
STEPS = 52  # of two epochs of 26, whose last batches have one row: none for rank 1
INTERRUPTED = {"step": 5, "evaluation": 27}  # the look for a signal at which rank 1 gets one: 26 steps and 3 batches


def trainer(planted: ModuleType, runtime: Runtime, update: str) -> Trainer:
    settings = planted.trainer_config(
        max_epochs=2, evals_per_epoch=1, batch_size=16, eval_batch_size=100, checkpoint_every_s=1e9
    )
    return Trainer(settings, planted.optimizer_config(embedding_update=update, embedding_l2=0.0), runtime, seed=3)


def data(planted: ModuleType) -> tuple[nn.Module, Split, Split]:
    """A model without what draws or sees a whole batch, and weighted samples."""
    model = planted.Tiny(seed=1, dropout=0.0)
    model.backbone[1] = nn.Identity()
    train = planted.split(25 * 16 + 1, 1)
    weight = np.random.default_rng(5).integers(1, 4, len(train)).astype(np.float32)
    return model, replace(train, weight=weight), planted.split(600, 2)


def steps(planted: ModuleType, runtime: Runtime, update: str) -> dict[str, Any]:
    """The loss of each step, and what is said of the averaged weights after the last."""
    fitting = Fitting(trainer(planted, runtime, update), *data(planted), folder=None)
    losses = [0.0]
    fitting.clock = 0.0
    for epoch in range(STEPS // fitting.steps_per_epoch):
        for batch in fitting.batches.shuffled(3, epoch, part=fitting.ranks.block):
            fitting.train_step(*batch)
            losses.append(float(fitting.loss_sum))
    record, _ = fitting.evaluate()
    weights = torch.cat([weight.flatten() for weight in fitting.model.state_dict().values()]).numpy()
    return {
        "losses": np.diff(losses).tolist(),
        "auc": record["valid/auc"],
        "logloss": record["valid/logloss"],
        "samples": fitting.state.samples,
        "weights": hashlib.sha256(weights.tobytes()).hexdigest(),
    }


def fit(planted: ModuleType, runtime: Runtime, update: str, folder: Path, *, resume: bool = False) -> dict[str, Any]:
    """A whole fit, or the rest of one."""
    model, train, valid = data(planted)
    done = trainer(planted, runtime, update).fit(model, train, valid, folder=folder, resume=resume)
    return {
        "auc": [record["valid/auc"] for record in done.history],
        "best_step": done.best_step,
        "samples": done.samples,
    }


def interrupted(planted: ModuleType, runtime: Runtime, update: str, folder: Path, at: int | None) -> str:
    """A fit that gets a signal at its `at`-th look for one; what it ended by."""
    return ended_by(lambda: fit(planted, runtime, update, folder), at=at)


def main(folder: Path) -> None:
    import planted  # beside this file, whose folder is the path of a program

    found = dict[str, Any]()
    with joined("auto") as ranks:
        runtime = replace(planted.cpu_runtime(folder / "machine"), ranks=ranks)
        for update in UPDATES:
            found[update] = steps(planted, runtime, update)
            for name, look in INTERRUPTED.items():
                at = look if ranks.rank else None
                found[f"{update} {name}"] = interrupted(planted, runtime, update, folder / f"{update}_{name}", at)
            found[f"{update} resumed"] = fit(planted, runtime, update, folder / f"{update}_alone", resume=True)
        found["refused"] = refused(planted, ranks)
        if ranks.rank:
            leave(folder, ranks, found)
            os._exit(3)
        try:
            ranks.total(torch.ones(5))
        except LostRankError as error:
            found["lost"] = str(error)
        leave(folder, ranks, found)


def refused(planted: ModuleType, ranks: Ranks) -> str:
    try:
        ranks.unite(planted.Tiny(seed=1))
    except UserError as error:
        return str(error)
    return ""


def leave(folder: Path, ranks: Ranks, found: dict[str, Any]) -> None:
    (folder / f"rank{ranks.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
