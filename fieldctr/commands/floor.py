"""What logistic regression reached on a table, where a run or `fieldctr baseline` has told it already: the floor."""

from collections.abc import Iterator
from pathlib import Path

from fieldctr.disk import read_object
from fieldctr.runs import RESULT
from fieldctr.training.trainer import Fit


def below_floor(fit: Fit, data_digest: str, run: Path, outputs: Path) -> Iterator[str]:
    """A sentence with the cure, if the fit is worse than logistic regression on the same rows."""
    auc, floor = fit.best["valid/auc"], floor_of(data_digest, run, outputs)
    if floor is not None and auc < floor:
        yield (
            f"valid AUC {auc:.4f} is below the {floor:.4f} of logistic regression on the same rows. "
            "`fieldctr search` finds other rates and penalties"
        )


def floor_of(data_digest: str, run: Path, outputs: Path) -> float | None:
    """The best validation AUC of logistic regression on the prepared table, in runs beside `run` and in baselines."""
    return max((*_of_runs(data_digest, run.parent), *_of_baselines(data_digest, outputs)), default=None)


def _of_runs(data_digest: str, folder: Path) -> Iterator[float]:
    for path in folder.glob(f"*/{RESULT}"):
        result = read_object(path) or {}
        if result.get("model") == "lr" and result.get("data_digest") == data_digest:
            yield result["valid"]["auc"]


def _of_baselines(data_digest: str, outputs: Path) -> Iterator[float]:
    for path in (outputs / "baseline").glob("*/baseline.json"):
        content = read_object(path) or {}
        if content.get("data_digest") == data_digest:
            yield from (row["scores"]["valid"]["auc"] for row in content["rows"] if row["kind"] == "lr")
