"""The finished runs behind the arms of a comparison, and what each of them left."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit

from fieldctr.runs import ERROR, METRICS, RECORD, check_run, lasting, load_config, load_result

LOGIT_BINS, LARGEST_LOGIT = 4000, 16.0  # of the histogram that calibration is read from
CALIBRATION_POINTS = 12
DIGESTS = ("config_digest", "data_digest", "schema_digest")
STAGES = ("field_embeddings", "model_field_embeddings", "pretraining")  # that a language model is read in


class Member(NamedTuple):
    """One finished run."""

    folder: Path
    result: dict[str, Any]
    config: dict[str, Any]
    record: dict[str, Any]  # run.json: where it comes from

    @property
    def seed(self) -> int:
        return self.result["seed"]

    @property
    def settings(self) -> dict[str, Any]:
        """What decides its numbers, by dotted key, but for its seed."""
        return {key: value for key, value in lasting(self.config).items() if key != "seed"}

    @property
    def command(self) -> list[str]:
        """What repeats it."""
        return self.record.get("command", [])

    def digests(self) -> dict[str, str]:
        """Of the configuration, of the table, of field vectors, of a first stage."""
        found = {key: self.result[key] for key in DIGESTS if self.result.get(key)}
        return found | {key: self.result[key]["digest"] for key in STAGES if self.result.get(key)}

    def history(self) -> list[dict[str, Any]]:
        """Every evaluation during its fit."""
        check_run(self.folder, [METRICS])
        path = self.folder / METRICS
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def load_members(folders: Iterable[Path]) -> list[Member]:
    """The finished runs in these folders; UserError where one is damaged."""
    return [Member(folder, load_result(folder), load_config(folder), _record(folder)) for folder in folders]


def _record(folder: Path) -> dict[str, Any]:
    path = folder / RECORD
    return json.loads(path.read_bytes()) if path.exists() else {}


def by_arm(comparison: Mapping[str, Any], members: Sequence[Member]) -> dict[str, list[Member]]:
    """By the name of each arm its runs, in the order of their seeds."""
    known = {member.folder.resolve(): member for member in members}
    found = {}
    for arm in comparison["arms"]:
        own = [known[path] for path in (Path(folder).resolve() for folder in arm["folders"]) if path in known]
        found[arm["name"]] = sorted(own, key=lambda member: member.seed)
    return found


def differences_of(own: Member, reference: Member) -> list[tuple[str, str, str]]:
    """Keys whose values differ, with both values as text; no text where the reference has no such key."""
    here, there = own.settings, reference.settings
    return [
        (key, _spelled(here, key) or "absent", _spelled(there, key))
        for key in sorted(here | there)
        if here.get(key, ...) != there.get(key, ...)
    ]


def _spelled(settings: Mapping[str, Any], key: str) -> str:
    return json.dumps(settings[key], ensure_ascii=False) if key in settings else ""


class Calibration(NamedTuple):
    """Predicted and observed click rates, by groups of equal weight."""

    predicted: np.ndarray
    observed: np.ndarray


def calibration(members: Iterable[Member], split: str, outputs: Path) -> Calibration | None:
    """Of the scores of all these runs together; None where scores or labels are gone.

    Of each run a histogram of its logits is kept, so that millions of rows take no sorting and no memory.
    """
    totals = np.zeros((3, LOGIT_BINS))  # of weights, clicks and probabilities
    for member in members:
        totals += _histograms(member, split, outputs)
    weight, clicks, chance = totals
    if not weight.sum():
        return None
    above = np.cumsum(weight) - weight / 2
    group = np.minimum(above / weight.sum() * CALIBRATION_POINTS, CALIBRATION_POINTS - 1).astype(int)
    mass, clicked, expected = (np.bincount(group, values, CALIBRATION_POINTS) for values in (weight, clicks, chance))
    own = mass > 0
    return Calibration(expected[own] / mass[own], clicked[own] / mass[own])


def _histograms(member: Member, split: str, outputs: Path) -> np.ndarray:
    """(3, LOGIT_BINS): weights, clicks and probabilities of its samples by their logit."""
    table, name = table_of(member, outputs), f"{split}.scores.npy"
    scores = member.folder / name
    if not scores.exists() or not (table / f"{split}.label.npy").exists():
        return np.zeros((3, LOGIT_BINS))
    check_run(member.folder, [name])
    logit = np.load(scores).astype(np.float64)
    label = np.load(table / f"{split}.label.npy", mmap_mode="r")
    path = table / f"{split}.weight.npy"
    weight = np.load(path).astype(np.float64) if path.exists() else np.ones(len(logit))
    place = ((logit.clip(-LARGEST_LOGIT, LARGEST_LOGIT) / LARGEST_LOGIT + 1) / 2 * (LOGIT_BINS - 1)).astype(int)
    counted = (weight, weight * (np.asarray(label) > 0.5), weight * expit(logit))
    return np.stack([np.bincount(place, values, LOGIT_BINS) for values in counted])


def table_of(member: Member, outputs: Path) -> Path:
    """Where its prepared table is, or was."""
    digest = member.result["data_digest"]
    places = [outputs, Path(member.config.get("outputs", "outputs"))]
    return next((place / "data" / digest for place in places if (place / "data" / digest).is_dir()), outputs / digest)


def why_unfinished(folder: Path) -> str:
    """The last line of what a run said when it failed."""
    path = folder / ERROR
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    return lines[-1] if lines else "killed, or still running"
