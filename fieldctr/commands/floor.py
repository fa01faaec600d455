"""What logistic regression reached on a table, where a run or `fieldctr baseline` has told it already."""

from collections.abc import Iterator
from pathlib import Path

from fieldctr.disk import read_object
from fieldctr.runs import RESULT


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
