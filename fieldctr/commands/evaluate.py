"""`fieldctr evaluate run=... split=... by=...`: the metrics of a finished run's model, again, and in slices."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fieldctr.analysis.comparison.clusters import clusters_of
from fieldctr.analysis.comparison.sentences import plural
from fieldctr.analysis.comparison.slices import (
    Slicing,
    by_field,
    by_frequency,
    counted_field,
    counts_train,
    measured_slices,
)
from fieldctr.commands.compared_rows import rows_of
from fieldctr.commands.machine import torch_as_it_was
from fieldctr.commands.trained import Trained, downsampled, evaluated_split, load_trained
from fieldctr.config import RuntimeConfig, parse
from fieldctr.data.dataset import Split
from fieldctr.data.describe import grid
from fieldctr.runs import leave_beside


@dataclass(frozen=True)
class EvaluateConfig:
    """The root of `fieldctr evaluate`."""

    data_root: str
    outputs: str
    run: str
    split: Literal["train", "valid", "test"]
    by: str | None
    runtime: RuntimeConfig


def evaluate(config: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics that `fieldctr evaluate` prints, of `compose("evaluate", ["run=...", "split=..."])`.

    With by=..., "by" has the slices. They are left in the run's folder, too. `load_run(folder).evaluate(split)` gives
    the metrics and leaves nothing.
    """
    settings = parse(EvaluateConfig, config, "")
    with torch_as_it_was():
        trained, found = _evaluated(settings)
    _record(settings, trained, found)
    return found


def main(node: dict[str, Any]) -> None:
    """Print the metrics, beside those in result.json where it has the split; leave them in the run's folder."""
    config = parse(EvaluateConfig, node, "")
    trained, found = _evaluated(config)
    if trained.dataset.negative_rate is not None:
        print(downsampled(trained.dataset.negative_rate))
    recorded = trained.result.get(config.split, {})
    print(f"{trained.result['model']} on {config.split} of {trained.result['dataset']}, {trained.runtime.describe()}")
    single = {name: value for name, value in found.items() if name != "by"}
    width = max(map(len, single))
    for name, value in single.items():
        print(f"  {name:{width}} {value:.6f}" + (f"   recorded {recorded[name]:.6f}" if name in recorded else ""))
    if "by" in found:
        print(slice_lines(found["by"]))
    _record(config, trained, found)


def slice_lines(found: Mapping[str, Any]) -> str:
    """One line for each slice of the rows."""
    lines = [[found["field"], "rows", "clicks", "AUC", "95 % interval"]]
    for part in found["parts"]:
        auc = [f"{part['auc']:.4f}", f"{part['low']:.4f} to {part['high']:.4f}"] if "auc" in part else ["-", "-"]
        lines.append([part["value"], f"{part['num_rows']:,}", f"{part['positive_rate']:.1%}", *auc])
    left_out = [f"{part['value']}: {part['left_out']}" for part in found["parts"] if "left_out" in part]
    return "\n".join([grid(lines), f"Intervals are over other {found['clusters']}, of this very model.", *left_out])


def _evaluated(config: EvaluateConfig) -> tuple[Trained, dict[str, Any]]:
    counted = ["train"] if config.by and counts_train(config.by) else []
    trained = load_trained(
        Path(config.run), outputs=Path(config.outputs), runtime=config.runtime, splits=[config.split, *counted]
    )
    slicing = None if config.by is None else _slicing(config.by, config.split, trained)  # a mistake is told at once
    found = evaluated_split(Path(config.run), trained, config.split)
    if slicing is None:
        return trained, {**found.metrics}
    group = str(trained.config.dataset.get("group") or "").removesuffix("_id")
    by = _by_slice(slicing, getattr(trained.dataset, config.split), found.logit)
    return trained, {**found.metrics, "by": by | {"clusters": plural(group) if group else "rows"}}


def _slicing(by: str, split: str, trained: Trained) -> Slicing:
    """Which slice each row of the split is in."""
    dataset, rows = trained.dataset, trained.config.train_rows
    counted = counted_field(by, trained.config.dataset, key="by")
    if counted is None:
        return by_field(dataset, split, by, key="by")
    train = dataset.train if rows == "all" else dataset.train.sample(rows, seed=trained.config.seed)
    return by_frequency(dataset, split, counted, key="by", train=train)


def _by_slice(slicing: Slicing, split: Split, logit: np.ndarray) -> dict[str, Any]:
    rows, kept = rows_of(split, split.group)
    if rows.group is not None:
        rows = rows._replace(cluster=clusters_of(rows.group))
    parts = measured_slices(slicing._replace(codes=slicing.codes[kept]), rows, logit[kept])
    return {"field": slicing.field, "parts": parts}


def _record(config: EvaluateConfig, trained: Trained, found: Mapping[str, Any]) -> None:
    leave_beside(Path(config.run), f"evaluate-{config.split}.json", found, trained.result)
