"""What `fieldctr train` says before its first step."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fieldctr.commands.show import called
from fieldctr.commands.trained import downsampled
from fieldctr.config import TrainConfig, TrainerConfig
from fieldctr.data.dataset import Dataset
from fieldctr.models.ctr_model import CTRModel
from fieldctr.training.optim import lr_scales
from fieldctr.training.pace import Pace
from fieldctr.training.runtime import Runtime


def beginning(
    config: TrainConfig, folder: Path, dataset: Dataset, model: CTRModel, *, runtime: Runtime, begun: Mapping[str, Any]
) -> Iterator[str]:
    """All that is said before the first step of a run in `folder`."""
    yield from what_begins(config, dataset, model, begun)
    yield f"{runtime.describe()}; settings: {settings_name(config)}; results go to {folder}"
    yield from how_rows_count(dataset, config.trainer)


def what_begins(config: TrainConfig, dataset: Dataset, model: CTRModel, begun: Mapping[str, Any]) -> Iterator[str]:
    """Which model on which table, how large, how fast it goes, and what of it learns more slowly.

    `begun` is what result.json says of how the fit begins.
    """
    size = model.num_parameters()
    name = called(config.choice("model"), config.choice("enhancer"))
    yield f"{name} on {dataset.name}: {size['embedding']:,} embedding + {size['dense']:,} dense parameters"
    bias = begun["first_bias"]
    start = "" if bias is None else f"; the output bias starts at train's log odds, {bias:.3g}"
    yield f"{len(dataset.train):,} train rows: {Pace(**begun['pace'])}{start}"
    for share in sorted({scale for scale in lr_scales(model, config.optimizer.base_width).values() if scale < 1}):
        yield f"wide matrices learn at {share:.3g} of optimizer.lr: {share * config.optimizer.lr:.3g}"


def how_rows_count(dataset: Dataset, trainer: TrainerConfig) -> Iterator[str]:
    """What a reader of the metrics must know of the samples."""
    if dataset.train.weight is not None:
        yield "samples count by their weights, in the loss and in all metrics"
        if trainer.extra_metrics:
            yield "trainer.extra_metrics know no weights and count each sample once: their names end in _unweighted"
    if dataset.negative_rate is not None:
        yield downsampled(dataset.negative_rate)


def settings_name(config: TrainConfig) -> str:
    """The searched settings that the defaults list took for this run, or that there are none."""
    if told := (config.choices or {}).get("settings"):
        return str(told)
    name = config.choice("tuned")
    return "defaults" if name == "none" else f"tuned/{name}"
