"""`fieldctr baseline dataset=... [run=FOLDER]`: what a model must beat, cannot reach, and where a run stands."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from fieldctr.analysis.baselines import boosting
from fieldctr.analysis.baselines import logistic as lr
from fieldctr.analysis.baselines.baselines import (
    MEMORY,
    Chosen,
    Row,
    ceilings,
    choose,
    floor_and_ceiling,
    label,
    markdown,
    share_closed,
    target_mean_logits,
    tree_features,
)  # fmt: skip
from fieldctr.analysis.baselines.boosting import BoostingConfig, fit_trees
from fieldctr.analysis.baselines.logistic import LogisticConfig, logistic
from fieldctr.analysis.baselines.target_means import BySplit, Discretized, discretize, logit
from fieldctr.artifacts import cached, check_stage, digest
from fieldctr.commands.trained import downsampled
from fieldctr.config import Between, Positive, parse
from fieldctr.data.dataset import Dataset
from fieldctr.data.prepare import prepared
from fieldctr.data.test_reads import note_test_read
from fieldctr.disk import write_json, write_text
from fieldctr.errors import UserError
from fieldctr.provenance import provenance
from fieldctr.ranking import auc
from fieldctr.runs import leave_beside, load_config, load_result, refuse_trial
from fieldctr.training.metrics import logloss
from fieldctr.training.runtime import choose_threads

VERSION = 2  # raise it when the same settings give other numbers
JSON_FILE, MARKDOWN_FILE = "baseline.json", "baseline.md"
WHERE = ("data_root", "outputs", "dataset", "run")  # where things are; the table is in its digest


@dataclass(frozen=True)
class BaselineConfig:
    """The root of `fieldctr baseline`."""

    data_root: str
    outputs: str
    seed: Annotated[int, Between(0, 2**32 - 1)]
    dataset: dict[str, Any]
    threads: Positive | Literal["auto"]
    logistic: LogisticConfig
    boosting: BoostingConfig
    smoothing: Annotated[float, Between(0.1)]  # 0 would give probabilities 0 and 1
    num_fields: Positive
    num_pairs: Positive
    train_rows: Positive
    screen_rows: Positive
    run: str | None


def main(node: dict[str, Any]) -> None:
    """Print the tables, computed once per prepared table and settings; with `run` also its place between them."""
    config = parse(BaselineConfig, node, "")
    outputs = Path(config.outputs)
    result = finished(Path(config.run)) if config.run else None
    dataset = prepared(config.dataset, data_dir=outputs / "data")
    if result and result["data_digest"] != dataset.digest:
        raise UserError(
            f"run={config.run} was trained on dataset={result['dataset']} ({result['data_digest']}), "
            f"not on {dataset.name} ({dataset.digest}). Give the run's dataset with the run's keys"
        )
    settings = {key: value for key, value in asdict(config).items() if key not in WHERE}
    libraries = {"lightgbm": boosting.version(), "scikit-learn": lr.version()}
    key = {"version": VERSION, "data": dataset.digest, **libraries, **settings}
    folder = cached(outputs / "baseline", key, lambda folder: record(config, dataset, folder, digest(key)))
    check_stage(folder)
    print((folder / MARKDOWN_FILE).read_text(encoding="utf-8"))
    if result:
        print(place(result, Path(config.run or ""), load(folder)))
    print(f"in {folder}")


def finished(folder: Path) -> dict[str, Any]:
    """The result of the run in `folder`; UserError where no run is, or has not finished."""
    load_config(folder)
    result = load_result(folder)
    refuse_trial(folder, result)
    return result


def record(config: BaselineConfig, dataset: Dataset, folder: Path, config_digest: str) -> None:
    """Leave the numbers as JSON and as Markdown."""
    note_test_read(dataset.folder, command="baseline", run=None, config_digest=config_digest)
    rows, notes = measure(config, dataset)
    weighted = ", weighted by sample" if dataset.train.weight is not None else ""
    head = (
        f"{dataset.name}, table {dataset.digest}; {len(dataset.train):,} train rows{weighted}, of which target means "
        f"and trees use {min(len(dataset.train), config.train_rows):,}; fields, pairs, C and trees chosen on valid; "
        f"seed {config.seed}."
    )
    if dataset.negative_rate is not None:
        notes.append(downsampled(dataset.negative_rate))
    content = {
        "data_digest": dataset.digest,
        "rows": [row._asdict() for row in rows],
        "notes": [head, *notes],
        **provenance(),
    }
    write_json(folder / JSON_FILE, content)
    write_text(folder / MARKDOWN_FILE, "\n".join([markdown(rows), head, *notes]))


def load(folder: Path) -> list[Row]:
    return [Row(**row) for row in json.loads((folder / JSON_FILE).read_text(encoding="utf-8"))["rows"]]


def measure(config: BaselineConfig, dataset: Dataset) -> tuple[list[Row], list[str]]:
    """All rows (the click rate, target means, logistic regression, trees, ceilings), and what is to say of them."""
    table = discretize(dataset, train_rows=config.train_rows)
    names = [field.name for field in dataset.schema.fields]
    say(f"target means of {len(names)} fields and {dataset.schema.num_pairs} pairs")
    chosen = chosen_of(config, table)
    usual = {name: np.full(len(table.label[name]), logit(np.asarray(table.rate))) for name in ("valid", "test")}
    rows = [scored("click rate of train", "rate", usual, table)]
    for kind, sets in (("field", chosen.fields), ("pair", chosen.pairs)):
        for fields in sets:
            logits = target_mean_logits(table, fields, smoothing=config.smoothing)
            rows.append(scored(" x ".join(names[i] for i in fields), kind, logits, table))
    fits = [logistic_regression(config, dataset, table), trees(config, table, chosen.pairs)]
    bounds, left_out = ceilings(dataset, table, chosen, names)
    rows += [*(row for row, _ in fits if row), *bounds]
    return rows, [*(note for _, note in fits), ceilings_note(left_out)]


def scored(name: str, kind: str, logits: BySplit, table: Discretized) -> Row:
    """A row from logits (n,) of valid and test."""
    scores = {}
    for split, own in logits.items():
        truth, weight = table.label[split], table.weight_of(split)
        scores[split] = {"auc": auc(truth, own, weight), "logloss": logloss(truth, own, weight)}
    return Row(name, kind, scores)


def logistic_regression(config: BaselineConfig, dataset: Dataset, table: Discretized) -> tuple[Row | None, str]:
    """The fit at its optimum, and a note on it; no row where scikit-learn is absent."""
    if not lr.version():
        return None, f"No logistic regression: {lr.CURE}"
    say(f"logistic regression, C from {min(config.logistic.C):g} to {max(config.logistic.C):g}")
    rows = {"train_rows": config.train_rows, "screen_rows": config.screen_rows}
    found = logistic(dataset, config.logistic, **rows)
    return scored(f"logistic regression (C = {found.fit.C:g})", "lr", found.logits, table), found.note


def trees(config: BaselineConfig, table: Discretized, pairs: list[tuple[int, int]]) -> tuple[Row | None, str]:
    """Boosted trees, and a note on them; no row where LightGBM is absent."""
    if not boosting.version():
        return None, f"No boosted trees: {boosting.CURE}"
    say(f"boosted trees on out-of-fold target means, at most {config.boosting.max_rounds:,} of them")
    logits = tree_logits(config, table, pairs)
    return scored("boosted trees on target means", "trees", logits, table), f"Trees by LightGBM {boosting.version()}."


def tree_logits(config: BaselineConfig, table: Discretized, pairs: list[tuple[int, int]]) -> BySplit:
    """Logits (n,) of valid and test by trees on out-of-fold target means of all fields and of these pairs."""
    features = tree_features(table, pairs, smoothing=config.smoothing, seed=config.seed)
    threads = choose_threads() if config.threads == "auto" else config.threads
    return fit_trees(features, table.label, config.boosting, threads=threads, seed=config.seed, weight=table.weight)


def chosen_of(config: BaselineConfig, table: Discretized) -> Chosen:
    """The single fields and the pairs that are best on valid, on a part of the rows."""
    thin = table.thinned(config.screen_rows)
    return choose(thin, num_fields=config.num_fields, num_pairs=config.num_pairs, smoothing=config.smoothing)


def ceilings_note(left_out: dict[str, float]) -> str:
    """What an oracle is, and which ones say nothing."""
    text = (
        "An oracle is the click rate of each cell among the very rows that it scores: no model of these fields alone "
        "does better on them. By chance: its valid AUC once the labels are shuffled, which is memory alone."
    )
    if left_out:
        names = ", ".join(f"{name} ({chance:.2f})" for name, chance in left_out.items())
        text += f" Left out, for that is {MEMORY} or more and the oracle says nothing: {names}."
    return text


def place(result: dict[str, Any], folder: Path, rows: list[Row]) -> str:
    """Where a finished run stands; leaves the numbers in its folder."""
    floor, ceiling, best = floor_and_ceiling(rows)
    own, low, bar = (scores["test"]["auc"] for scores in (result, floor.scores, best.scores))
    high = ceiling and ceiling.scores["test"]["auc"]
    share = None if high is None else share_closed(own, low, high)
    numbers = {"test_auc": own, "floor": low, "ceiling": high, "share": share, "best_baseline": bar}
    leave_beside(folder, "evaluate-baseline.json", numbers, result)
    way = f"{own - low:+.4f} against {label(floor)} {low:.4f}; no ceiling is known that says something"
    if ceiling and share is not None:
        way = f"{share:.1%} of the way from {label(floor)} {low:.4f} to {label(ceiling)} {high:.4f}"
        way += (
            "" if ceiling.kind == "truth" or ceiling.name == "all fields" else ", which a model of more fields may pass"
        )
    return (
        f"{result['model']}, seed {result['seed']}: test AUC {own:.4f}\n"
        f"  {way}\n"
        f"  {own - bar:+.4f} against the best baseline on valid, {label(best)}, {bar:.4f}"
    )


def say(text: str) -> None:
    """Progress goes to stderr, results to stdout."""
    print(text, file=sys.stderr)
