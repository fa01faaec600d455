"""Boosted trees on target means as a run, so that a study can compare them with models: result and scores."""

from pathlib import Path
from typing import Any

import numpy as np

from fieldctr.analysis.baselines import boosting
from fieldctr.analysis.baselines.target_means import discretize
from fieldctr.commands.baseline import BaselineConfig, chosen_of, tree_logits
from fieldctr.config import parse
from fieldctr.data.npy import save_alone
from fieldctr.data.prepare import prepared
from fieldctr.data.table import SPLITS
from fieldctr.data.test_reads import note_test_read
from fieldctr.errors import UserError
from fieldctr.runs import Run, config_digest
from fieldctr.training.metrics import metrics


def train_trees(node: dict[str, Any], folder: Path) -> None:
    """Fit what `fieldctr baseline` calls trees, in `folder`; nothing where it has finished."""
    config = parse(BaselineConfig, node, "")
    if not boosting.version():
        raise UserError(f"boosted trees need LightGBM: {boosting.CURE}")
    with Run.start(folder, node, resume=True) as run:
        if run.result is not None:
            return
        with run.stage("prepare"):
            dataset = prepared(config.dataset, data_dir=Path(config.outputs) / "data")
        run.reads([dataset.folder])
        with run.stage("fit"):
            table = discretize(dataset, train_rows=config.train_rows)
            logits = tree_logits(config, table, chosen_of(config, table).pairs)
        note_test_read(dataset.folder, command="trees", run=folder, config_digest=config_digest(node))
        scores = {}
        for name, logit in logits.items():
            split = getattr(dataset, name)
            save_alone(folder / f"{name}.scores.npy", logit.astype(np.float32))
            scores[name] = metrics(split.label, logit.astype(np.float32), split.group, split.pctr, weight=split.weight)
        run.rewrite_metrics([])  # trees have no evaluations between
        run.finish(
            {
                **{"dataset": dataset.name, "model": "lightgbm", "seed": config.seed, "settings": "fixed"},
                **dict.fromkeys(("enhancer", "ablation", "schema"), "none"),
                **scores,
                "num_fields": dataset.schema.num_fields,
                "num_rows": {name: len(getattr(dataset, name)) for name in SPLITS},
                "fit_seconds": {"train": run.seconds["fit"]},
                "runtime": f"LightGBM {boosting.version()}",
                "data_digest": dataset.digest,
                "schema_digest": dataset.schema.fingerprint(),
            }
        )
