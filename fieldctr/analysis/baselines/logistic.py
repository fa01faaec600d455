"""Logistic regression at its optimum: the floor that a model of fields and their pairs has to leave below it.

min over w, b of C sum_i s_i log(1 + exp(-y_i (x_i w + b))) + |w|^2 / 2, with y = +-1 and sample weights s of mean 1.

Convex: one optimum per C. Newton steps reach it, each solved by conjugate gradients (scikit-learn's newton-cg, an
extra). The path goes from the strongest penalty to weaker ones, each started at the optimum before. L-BFGS needs four
to ten times the time on one-hot tables.
"""

import importlib
import importlib.util
import warnings
from dataclasses import dataclass
from importlib import metadata
from typing import Any, NamedTuple, Self

import numpy as np

from fieldctr.analysis.baselines.design import logits, matrix, scales
from fieldctr.analysis.baselines.target_means import BySplit
from fieldctr.config import Positive, Weight
from fieldctr.data.dataset import Dataset, Split
from fieldctr.errors import UserError
from fieldctr.ranking import auc
from fieldctr.schema import Schema

CURE = "pip install 'fieldctr[sklearn]'"
VALUES = 100_000_000  # of the matrix at most: 1.2 GB
MAX_STEPS = 1000  # Newton steps of one fit; 20 are many


@dataclass(frozen=True)
class LogisticConfig:
    """How the path of penalties is searched. Node `logistic`."""

    C: list[float | int]  # scikit-learn's inverse strengths of the penalty
    patience: Positive  # C in a row without a better valid AUC that end the path
    tolerance: Weight  # of the gradient, per mean sample: where a fit has arrived

    def __post_init__(self) -> None:
        if not self.C or min(self.C) <= 0:
            raise UserError(f"logistic.C={self.C} is not allowed: expected numbers above 0, such as [0.01, 0.1, 1]")


class Samples(NamedTuple):
    """Rows of a split: matrix, labels and weights."""

    x: Any  # (n, V), scipy's CSR
    label: np.ndarray  # (n,)
    weight: np.ndarray  # (n,) float64 of mean 1

    @classmethod
    def of(cls, schema: Schema, split: Split, scale: np.ndarray) -> Self:
        """All rows of the split."""
        weight = np.ones(len(split)) if split.weight is None else split.weight / split.mean_weight
        return cls(matrix(schema, split, scale), np.asarray(split.label), weight)

    def gradient(self, weights: np.ndarray, bias: float, strength: float) -> float:
        """The largest partial derivative of the objective, over C times the number of rows."""
        residual = self.weight * (0.5 + 0.5 * np.tanh(0.5 * (self.x @ weights + bias)) - self.label)
        slopes = np.append(self.x.T @ residual + weights / strength, residual.sum())
        return float(np.abs(slopes).max()) / len(self.label)

    def auc(self, weights: np.ndarray) -> float:
        """The AUC of the linear model."""
        return auc(self.label, self.x @ weights, self.weight)


class Fit(NamedTuple):
    """The optimum for one C."""

    C: float
    weights: np.ndarray  # (V,)
    bias: float
    gradient: float  # the largest partial derivative of the objective per mean sample


class Logistic(NamedTuple):
    """The fit with the best valid AUC, and what it scores."""

    fit: Fit
    logits: BySplit  # (n,) of valid and test
    note: str


def version() -> str | None:
    """The library's version, or None where it is not installed."""
    return metadata.version("scikit-learn") if importlib.util.find_spec("sklearn") else None


def logistic(dataset: Dataset, config: LogisticConfig, *, train_rows: int, screen_rows: int) -> Logistic:
    """Choose C by the AUC on valid, on at most `screen_rows` rows of each split; fit it on `train_rows`; score.

    The test split is only scored.
    """
    schema, train = dataset.schema, dataset.train
    scale = scales(schema, train)
    rows = min(train_rows, max(1, VALUES // schema.num_columns))
    part = _thinned(train, min(rows, screen_rows))
    samples, valid = (Samples.of(schema, own, scale) for own in (part, _thinned(dataset.valid, screen_rows)))
    solver = Solver(config.tolerance)
    fits, fit = path(solver, samples, valid, config)
    whole = _thinned(train, rows)
    if len(whole) > len(part):
        fit = solver.fit(fit.C, Samples.of(schema, whole, scale), start=fit)
    splits = {"valid": dataset.valid, "test": dataset.test}
    found = {name: logits(schema, split, scale, fit.weights, fit.bias) for name, split in splits.items()}
    return Logistic(fit, found, note(fit, [own.C for own in fits], config, rows=(len(part), len(whole))))


class Solver:
    """scikit-learn's, with a start."""

    def __init__(self, tolerance: float) -> None:
        linear: Any = importlib.import_module("sklearn.linear_model")
        self.model = linear.LogisticRegression(solver="newton-cg", tol=tolerance, max_iter=MAX_STEPS, warm_start=True)

    def fit(self, strength: float, samples: Samples, *, start: Fit | None = None) -> Fit:
        """The optimum for C = `strength`, sought from `start`."""
        self.model.set_params(C=strength)
        if start:
            self.model.coef_, self.model.intercept_ = start.weights[None].copy(), np.array([start.bias])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # whether it has arrived is measured here, and said
            self.model.fit(samples.x, samples.label, sample_weight=samples.weight)
        weights, bias = self.model.coef_[0].copy(), float(self.model.intercept_[0])
        return Fit(strength, weights, bias, samples.gradient(weights, bias, strength))


def path(solver: Solver, train: Samples, valid: Samples, config: LogisticConfig) -> tuple[list[Fit], Fit]:
    """The fits until `patience` in a row were no better on valid, and the best of them."""
    fits: list[Fit] = []
    aucs: list[float] = []
    for strength in sorted(set(config.C)):
        fits.append(solver.fit(strength, train, start=fits[-1] if fits else None))
        aucs.append(valid.auc(fits[-1].weights))
        if len(aucs) - 1 - int(np.argmax(aucs)) == config.patience:
            break
    return fits, fits[int(np.argmax(aucs))]


def note(fit: Fit, tried: list[float], config: LogisticConfig, *, rows: tuple[int, int]) -> str:
    """How the fit came about, and what to do where it is not the last word. `rows`: of the path, and of the fit."""
    part, whole = rows
    text = f"Logistic regression on {whole:,} train rows, C = {fit.C:g} chosen by AUC on valid among "
    text += ", ".join(f"{strength:g}" for strength in tried)
    text += f" (on {part:,} of them)" if part < whole else ""
    text += f"; largest gradient per sample {fit.gradient:.1g}"
    if fit.gradient > config.tolerance:
        text += f", above logistic.tolerance {config.tolerance:g}: not at its optimum"
    low, high = min(config.C), max(config.C)
    if fit.C in (low, high) and low < high:
        text += f". This is an edge of logistic.C: try {'lower' if low == fit.C else 'higher'} ones"
    return text + "."


def _thinned(split: Split, rows: int) -> Split:
    """At most `rows` rows, evenly spaced."""
    step = -(-len(split) // rows)
    return split.take(slice(None, None, step)) if step > 1 else split
