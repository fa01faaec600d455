"""What `fieldctr baseline` fits as a run, so that a study can compare it with models: result and scores."""

from pathlib import Path
from typing import Any

import numpy as np

from fieldctr.analysis.baselines import boosting
from fieldctr.analysis.baselines import logistic as lr
from fieldctr.analysis.baselines.target_means import BySplit, discretize
from fieldctr.commands.baseline import BaselineConfig, chosen_of, tree_logits
from fieldctr.config import parse
from fieldctr.data.dataset import Dataset
from fieldctr.data.npy import save_alone
from fieldctr.data.prepare import prepared
from fieldctr.data.table import SPLITS
from fieldctr.data.test_reads import note_test_read
from fieldctr.errors import UserError
from fieldctr.runs import Run, config_digest
from fieldctr.training.metrics import metrics


def train_baseline(name: str, node: dict[str, Any], folder: Path) -> None:
    """Fit the baseline of this name, a key of FITS, in `folder`; nothing where it has finished."""
    config = parse(BaselineConfig, node, "")
    library, fit = FITS[name]
    if not library.version():
        raise UserError(f"the arm {name} is not installed: {library.CURE}")
    with Run.start(folder, node, resume=True) as run:
        if run.result is not None:
            return
        with run.stage("prepare"):
            dataset = prepared(config.dataset, data_dir=Path(config.outputs) / "data")
        run.reads([dataset.folder])
        with run.stage("fit"):
            logits, told = fit(config, dataset)
        note_test_read(dataset.folder, command=name, run=folder, config_digest=config_digest(node))
        scores = {}
        for split_name, logit in logits.items():
            split = getattr(dataset, split_name)
            save_alone(folder / f"{split_name}.scores.npy", logit.astype(np.float32))
            scores[split_name] = metrics(
                split.label, logit.astype(np.float32), split.group, split.pctr, weight=split.weight
            )
        run.rewrite_metrics([])  # a baseline has no evaluations between
        run.finish(
            {
                **{"dataset": dataset.name, "model": name, "seed": config.seed, "settings": "fixed"},
                **dict.fromkeys(("enhancer", "ablation", "schema"), "none"),
                **scores,
                **told,
                "num_fields": dataset.schema.num_fields,
                "num_rows": {split_name: len(getattr(dataset, split_name)) for split_name in SPLITS},
                "fit_seconds": {"train": run.seconds["fit"]},
                "data_digest": dataset.digest,
                "schema_digest": dataset.schema.fingerprint(),
            }
        )


def _trees(config: BaselineConfig, dataset: Dataset) -> tuple[BySplit, dict[str, Any]]:
    """Boosted trees on target means."""
    table = discretize(dataset, train_rows=config.train_rows)
    return tree_logits(config, table, chosen_of(config, table).pairs), {"runtime": f"LightGBM {boosting.version()}"}


def _logistic(config: BaselineConfig, dataset: Dataset) -> tuple[BySplit, dict[str, Any]]:
    """Logistic regression at its optimum, C chosen on valid."""
    found = lr.logistic(dataset, config.logistic, train_rows=config.train_rows, screen_rows=config.screen_rows)
    return found.logits, {"runtime": f"scikit-learn {lr.version()}", "note": found.note}


FITS = {"lightgbm": (boosting, _trees), "logistic": (lr, _logistic)}
