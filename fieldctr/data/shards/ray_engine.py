"""Pass one on the workers of Ray (https://docs.ray.io): each makes the shards of a run of rows, on any machine.

What a worker gets is a recipe for the table and the numbers of its rows. Raw files and outputs lie where all see them.
"""

import importlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fieldctr import signals
from fieldctr.cores import ONE_THREAD
from fieldctr.data.budget import Budget, Limits
from fieldctr.data.shards.reader import Reader
from fieldctr.data.shards.samples import row_columns
from fieldctr.data.shards.shards import gaps
from fieldctr.data.shards.writer import write_shards
from fieldctr.data.table import Table
from fieldctr.errors import UserError
from fieldctr.trust import VARIABLE

TASK_ROWS = 1 << 20


class Recipe(NamedTuple):
    """What a worker needs."""

    source: Callable[[], Table]
    reader: Reader
    group: str | None
    weight: str | None
    folder: Path  # for the shards
    limits: Limits | None = None  # None: what the memory allows

    def limits_of(self, budget: Budget) -> Limits:
        """What is in memory at a time."""
        return self.limits or budget.limits(self.reader.num_columns)


def write_with_ray(recipe: Recipe, max_memory_gb: float) -> int:
    """Make all shards that `recipe.folder` lacks; gives how many rows there are. UserError where Ray is absent.

    The workers share `max_memory_gb`.
    """
    ray = _ray()
    started = not ray.is_initialized()
    if started:
        settings = {
            "env_vars": ONE_THREAD | {VARIABLE: os.environ.get(VARIABLE, "")}
        }  # a worker imports the source itself
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR", runtime_env=settings)
    signals.retake()  # else SIGTERM ends in a native trace
    try:
        workers = int(ray.cluster_resources()["CPU"])
        task = ray.remote(num_cpus=1, max_retries=0)(write_rows)
        pieces, pending, ended = _pieces(recipe.folder), {}, False
        end = max(first for first, _ in gaps(recipe.folder))
        while pending or not ended:
            while not ended and len(pending) < workers:
                first, rows = next(pieces)
                pending[task.remote(recipe, first, rows, max_memory_gb / workers)] = first, rows
            (done, *_), _ = ray.wait(list(pending))
            first, rows = pending.pop(done)
            rows_read = ray.get(done)
            if rows_read < rows:
                ended = True
            if rows_read:
                end = max(end, first + rows_read)
        return end
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None  # with the words of the worker, not its traceback
    finally:
        if started:
            ray.shutdown()


def write_rows(recipe: Recipe, first: int, rows: int, max_memory_gb: float) -> int:
    """Make the shards of `rows` rows from number `first` on; how many there were."""
    frame = recipe.source().frame
    limits = recipe.limits_of(Budget.of(max_memory_gb))
    extra = row_columns(frame.collect_schema(), recipe.group, recipe.weight)
    return write_shards(recipe.reader, frame.slice(first, rows), extra, recipe.folder, first=first, limits=limits)


def _pieces(folder: Path) -> Iterator[tuple[int, int]]:
    """First row and number of rows of task after task, without end: how many rows there are, the reading tells."""
    for first, rows in list(gaps(folder)):
        done = 0
        while rows is None or done < rows:
            piece = TASK_ROWS if rows is None else min(TASK_ROWS, rows - done)
            yield first + done, piece
            done += piece


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise UserError(
            "engine=ray needs Ray: pip install 'fieldctr[ray]'. engine=polars gives the same bytes without it."
        ) from error
