"""`fieldctr train`: prepare, build, fit, evaluate, record."""

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file

from fieldctr.analysis.heatmap import field_pair_heatmap
from fieldctr.artifacts import write_text
from fieldctr.commands.launch import choices, run_folder
from fieldctr.config import TrainConfig, parse
from fieldctr.data.prepare import prepared
from fieldctr.models.ctr_model import CTRModel, build_model
from fieldctr.runs import Run, finished
from fieldctr.schema import Schema
from fieldctr.tracking import Tracker
from fieldctr.training.evaluate import evaluate
from fieldctr.training.runtime import Runtime
from fieldctr.training.trainer import Trainer


def main(node: dict[str, Any]) -> None:
    """Run or resume the training that `node` describes, in Hydra's run folder."""
    config, folder = parse(TrainConfig, node, ""), run_folder()
    result = finished(folder, node) if config.resume else None
    if result is None:
        with Run.start(folder, node, resume=config.resume) as run:
            result = train(config, run)
    print(summary(result, folder))
