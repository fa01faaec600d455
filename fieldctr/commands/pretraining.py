"""A run whose enhancer is a stage before the training, such as CTRL, begins where that stage ends."""

import sys
from collections.abc import Mapping
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from fieldctr.config import TrainConfig
from fieldctr.data.dataset import Dataset
from fieldctr.errors import UserError
from fieldctr.llm.account import read_account
from fieldctr.models.ctr_model import CTRModel, pretrains
from fieldctr.runs import Run
from fieldctr.training.runtime import Runtime


def refuse_misfit_stage(config: TrainConfig) -> None:
    """UserError for keys that do not go with a stage before the training."""
    if not pretrains(config.enhancer):
        return
    named = f"enhancer={config.choice('enhancer')}"
    if config.warm_start:
        raise UserError(
            f"warm_start and {named} do not go together: both are the weights that the training starts from. "
            "Take enhancer=none, or warm_start=null"
        )
    if config.schema:
        raise UserError(
            f"schema={config.choice('schema')} changes the fields, and {named} reads the entities as the dataset's "
            "YAML gives them. Use schema=none"
        )


def pretrain(
    model: CTRModel,
    config: TrainConfig,
    run: Run,
    *,
    dataset: Dataset,
    runtime: Runtime,
    vectors: Mapping[str, Tensor],
) -> dict[str, Any]:
    """Let `model` begin where its enhancer's first stage ends, if it has one; gives what result.json says of that."""
    if not pretrains(config.enhancer):
        return {}
    from fieldctr.commands.first_stage import WEIGHTS, made, stage_of

    with run.stage("pretrain"), runtime.ranks.first():
        stage = stage_of(config, dataset, vectors, runtime.device)
        folder = made(stage)
    run.reads([folder])
    account = read_account(folder)
    moved = load_file(folder / WEIGHTS)
    model.load_state_dict({**model.state_dict(), **moved})
    print(f"begins with {len(moved)} weights of the first stage in {folder}", file=sys.stderr)
    reads = {} if stage.settings.source == "views" else {"encoder": config.choice("encoder")}
    return {"pretraining": {"digest": folder.name, "source": stage.settings.source, **reads, **account}}
