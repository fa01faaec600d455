"""`fieldctr evaluate run=... split=...`: the metrics of a finished run's model, computed again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fieldctr.commands.trained import downsampled, load_trained
from fieldctr.config import RuntimeConfig, parse
from fieldctr.runs import leave_beside
from fieldctr.training.evaluate import evaluate


@dataclass(frozen=True)
class EvaluateConfig:
    """The root of `fieldctr evaluate`."""

    data_root: str
    outputs: str
    run: str
    split: Literal["train", "valid", "test"]
    runtime: RuntimeConfig


def main(node: dict[str, Any]) -> None:
    """Print the metrics, beside those in result.json where it has the split; leave them in the run's folder."""
    config = parse(EvaluateConfig, node, "")
    folder = Path(config.run)
    trained = load_trained(folder, outputs=Path(config.outputs), runtime=config.runtime, splits=[config.split])
    found = evaluate(
        trained.model,
        getattr(trained.dataset, config.split),
        batch_size=trained.config.trainer.eval_batch_size,
        runtime=trained.runtime,
        extra=trained.config.trainer.extra_metrics,
    ).metrics
    if trained.dataset.negative_rate is not None:
        print(downsampled(trained.dataset.negative_rate))
    recorded = trained.result.get(config.split, {})
    print(f"{trained.result['model']} on {config.split} of {trained.result['dataset']}, {trained.runtime.describe()}")
    for name, value in found.items():
        print(f"  {name:18} {value:.6f}" + (f"   recorded {recorded[name]:.6f}" if name in recorded else ""))
    leave_beside(folder, f"evaluate-{config.split}.json", found, trained.result)
