"""`fieldctr evaluate run=... split=...`: the metrics of a finished run's model, computed again."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fieldctr.commands.machine import torch_as_it_was
from fieldctr.commands.trained import Trained, downsampled, load_trained, split_metrics
from fieldctr.config import RuntimeConfig, parse
from fieldctr.runs import leave_beside


@dataclass(frozen=True)
class EvaluateConfig:
    """The root of `fieldctr evaluate`."""

    data_root: str
    outputs: str
    run: str
    split: Literal["train", "valid", "test"]
    runtime: RuntimeConfig


def evaluate(config: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that `fieldctr evaluate` prints, of `compose("evaluate", ["run=...", "split=..."])`.

    They are left in the run's folder, too. `load_run(folder).evaluate(split)` gives them and leaves nothing.
    """
    settings = parse(EvaluateConfig, config, "")
    with torch_as_it_was():
        trained, metrics = _evaluated(settings)
    _record(settings, trained, metrics)
    return metrics


def main(node: dict[str, Any]) -> None:
    """Print the metrics, beside those in result.json where it has the split; leave them in the run's folder."""
    config = parse(EvaluateConfig, node, "")
    trained, metrics = _evaluated(config)
    if trained.dataset.negative_rate is not None:
        print(downsampled(trained.dataset.negative_rate))
    recorded = trained.result.get(config.split, {})
    print(f"{trained.result['model']} on {config.split} of {trained.result['dataset']}, {trained.runtime.describe()}")
    for name, value in metrics.items():
        print(f"  {name:18} {value:.6f}" + (f"   recorded {recorded[name]:.6f}" if name in recorded else ""))
    _record(config, trained, metrics)


def _evaluated(config: EvaluateConfig) -> tuple[Trained, dict[str, float]]:
    trained = load_trained(
        Path(config.run), outputs=Path(config.outputs), runtime=config.runtime, splits=[config.split]
    )
    return trained, split_metrics(Path(config.run), trained, config.split)


def _record(config: EvaluateConfig, trained: Trained, metrics: Mapping[str, float]) -> None:
    leave_beside(Path(config.run), f"evaluate-{config.split}.json", metrics, trained.result)
