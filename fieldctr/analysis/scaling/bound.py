"""What is known of scaling before a run: the capacity term of FAT's bound, and what an oracle reaches."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from fieldctr.analysis.scaling.laws import Cells, fit, loss_law


def capacity(num_fields: int, dim: int, rows: int) -> float:
    """sqrt(F d^2 + F^2) / sqrt(m): how the generalisation bound of one FAT layer grows (FAT, theorem 4.1).

    Up to a constant that the paper does not give, so ratios mean something and the value does not.
    """
    return float(np.sqrt((num_fields * dim**2 + num_fields**2) / rows))


def oracle_exponent(curve: Sequence[Mapping[str, float]], metric: str) -> float | None:
    """alpha of E + A / (k + 1/2)^alpha over the numbers k of effects that the oracle knows; None for fewer than four.

    The half makes the form all but exact from k = 1 on: sum_{j > k} j^-c ~ (k + 1/2)^(1 - c) / (c - 1).
    """
    points = [point for point in curve if point["effects"] > 0]
    if len(points) < 4:
        return None
    sizes = np.array([[point["effects"] + 0.5, 1.0] for point in points])
    values = np.array([point[metric] for point in points])
    found = fit(loss_law((0,)), Cells(sizes, values, np.ones(len(points))), values[None])
    return float(found.named()["alpha"][0])


def oracle_lines(curve: Sequence[Mapping[str, float]]) -> Iterator[str]:
    """The curve in words: what the k strongest effects reach when the others are averaged, before clicks are drawn."""
    yield "an oracle that knows the k strongest effects and averages the others"
    for point in curve:
        reached = f"AUC {point['auc']:.4f}  LogLoss {point['logloss']:.4f}  variance lacking {point['lacking']:.2%}"
        yield f"  k = {point['effects']:<5} {reached}"
    for metric, name in (("auc", "AUC"), ("logloss", "LogLoss"), ("lacking", "variance lacking")):
        exponent = oracle_exponent(curve, metric)
        if exponent is not None:
            yield f"{name} = E + A / (k + 1/2)^alpha: alpha = {exponent:.3f}"
