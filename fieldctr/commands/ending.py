"""What a finished fit leaves in result.json, and what `fieldctr train` says of it."""

import sys
from pathlib import Path
from typing import Any

from fieldctr.commands.floor import below_floor
from fieldctr.config import TrainConfig
from fieldctr.data.dataset import Dataset
from fieldctr.training.advice import advice
from fieldctr.training.trainer import Fit


def ending(fit: Fit, config: TrainConfig, folder: Path, dataset: Dataset) -> dict[str, Any]:
    """Say what a reader of the run should doubt; why the fit ended and how fast it was, for result.json.

    What depends on the runs beside `folder` is said and not recorded: the run itself does not depend on them.
    """
    doubts = list(advice(fit, config.trainer))
    beside = [] if config.choice("model") == "lr" else below_floor(fit, dataset.digest, folder, Path(config.outputs))
    for text in [*doubts, *beside]:
        print(f"warning: {text}", file=sys.stderr)
    return {
        "best_step": fit.best_step,
        "warnings": doubts,
        "stopped": fit.stopped,
        "samples": fit.samples,
        "samples_per_s": round(fit.samples_per_s),
        "fit_seconds": {stage: round(value, 3) for stage, value in fit.seconds.items()},
    }
