"""Gradient-boosted trees on target means: what a practitioner would try first.

Source: Ke et al., "LightGBM: A Highly Efficient Gradient Boosting Decision Tree", NIPS 2017; the library is an extra.
"""

import importlib
import importlib.util
from dataclasses import dataclass
from importlib import metadata
from typing import Annotated, Any

import numpy as np

from fieldctr.analysis.baselines.target_means import BySplit
from fieldctr.config import Between, Positive, Share, Weight

CURE = "pip install 'fieldctr[lightgbm]'"


@dataclass(frozen=True)
class BoostingConfig:
    """LightGBM's own names. Node `boosting`."""

    learning_rate: Weight
    num_leaves: Annotated[int, Between(2)]
    min_data_in_leaf: Positive
    feature_fraction: Share
    bagging_fraction: Share
    lambda_l2: Weight
    max_rounds: Positive
    patience: Positive  # rounds without a better valid AUC


def version() -> str | None:
    """The library's version, or None where it is not installed."""
    return metadata.version("lightgbm") if importlib.util.find_spec("lightgbm") else None


def fit_trees(
    features: BySplit,
    label: BySplit,
    config: BoostingConfig,
    *,
    threads: int,
    seed: int,
    weight: BySplit | None = None,
) -> BySplit:
    """Logits (n,) of valid and test from features (n, features); the number of trees is chosen on valid."""
    lightgbm: Any = importlib.import_module("lightgbm")
    parameters: dict[str, Any] = {
        "objective": "binary",
        "metric": "auc",
        "learning_rate": config.learning_rate,
        "num_leaves": config.num_leaves,
        "min_data_in_leaf": config.min_data_in_leaf,
        "feature_fraction": config.feature_fraction,
        "bagging_fraction": config.bagging_fraction,
        "bagging_freq": 1,
        "lambda_l2": config.lambda_l2,
        "num_threads": threads,
        "deterministic": True,
        "force_row_wise": True,
        "seed": seed,
        "verbosity": -1,
    }
    weights = weight or dict.fromkeys(label)
    train = lightgbm.Dataset(features["train"], label["train"], weight=weights["train"])
    valid = lightgbm.Dataset(features["valid"], label["valid"], reference=train, weight=weights["valid"])
    stop = lightgbm.early_stopping(config.patience, verbose=False)
    trees = lightgbm.train(parameters, train, config.max_rounds, valid_sets=[valid], callbacks=[stop])
    return {name: np.asarray(trees.predict(features[name], raw_score=True)) for name in ("valid", "test")}
