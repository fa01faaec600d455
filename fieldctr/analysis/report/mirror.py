"""A comparison in the tracker: one run of the study, with its table and its pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fieldctr.analysis.comparison.tables import csv_rows
from fieldctr.config import TrackerConfig
from fieldctr.tracking import Tracker

NAME = "comparison"  # of the run, and the tag that finds it


def mirror_comparison(
    config: TrackerConfig, folder: Path, comparisons: Sequence[Mapping[str, Any]], pictures: Mapping[str, Path]
) -> None:
    """Mirror what `report` wrote into `folder`; called again, the same run is made anew. A failure is said, no error.

    `config` has the study as its group.
    """
    about = [{key: one[key] for key in ("dataset", "split", "against", "by")} for one in comparisons]
    tracker = Tracker(replace(config, tags=[*config.tags, NAME]), folder, NAME, {"comparisons": about})
    with tracker:
        tracker.table("arms", csv_rows(comparisons))
        tracker.finish(_summary(comparisons), pictures)


def _summary(comparisons: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The mean of each arm in each metric."""
    return {
        f"{one['dataset']}/{arm['name']}/{metric}": own["mean"]
        for one in comparisons
        for arm in one["arms"]
        for metric, own in arm["metrics"].items()
    }
