"""`fieldctr baseline dataset=... [run=FOLDER]`: what a model must beat, cannot reach, and where a run stands."""

import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from fieldctr.analysis.baselines import (
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
from fieldctr.analysis.boosting import CURE, BoostingConfig, boosted, version
from fieldctr.analysis.target_means import BySplit, Coded, coded, logit
from fieldctr.artifacts import cached, write_json, write_text
from fieldctr.commands.machine import start_runtime
from fieldctr.config import Between, OptimizerConfig, Positive, RuntimeConfig, TrainerConfig, parse
from fieldctr.data.dataset import Dataset
from fieldctr.data.prepare import prepared
from fieldctr.errors import UserError
from fieldctr.models.ctr_model import build_model
from fieldctr.ranking import auc
from fieldctr.runs import load_config, load_result, provenance
from fieldctr.training.evaluate import evaluate
from fieldctr.training.metrics import logloss
from fieldctr.training.runtime import Runtime
from fieldctr.training.trainer import Trainer

VERSION = 1  # raise it when the same settings give other numbers
JSON_FILE, MARKDOWN_FILE = "baseline.json", "baseline.md"
WHERE = ("data_root", "outputs", "dataset", "run")  # where things are; the table is in its digest
LR = {"_target_": "fieldctr.models.lr.LR"}


@dataclass(frozen=True)
class BaselineConfig:
    """The root of `fieldctr baseline`."""

    data_root: str
    outputs: str
    seed: Annotated[int, Between(0, 2**32 - 1)]
    dataset: dict[str, Any]
    trainer: TrainerConfig
    optimizer: OptimizerConfig
    runtime: RuntimeConfig
    boosting: BoostingConfig
    learning_rates: list[float]
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
    if not config.learning_rates:
        raise UserError("learning_rates=[] is not allowed: expected one at least, such as [0.005]")
    result = finished(Path(config.run)) if config.run else None
    dataset = prepared(config.dataset, data_dir=outputs / "data")
    if result and result["data_digest"] != dataset.digest:
        raise UserError(
            f"run={config.run} was trained on dataset={result['dataset']} ({result['data_digest']}), "
            f"not on {dataset.name} ({dataset.digest}). Give the run's dataset with the run's keys"
        )
    settings = {key: value for key, value in asdict(config).items() if key not in WHERE}
    key = {"version": VERSION, "data": dataset.digest, "lightgbm": version(), **settings}
    folder = cached(outputs / "baseline", key, lambda folder: record(config, dataset, folder))
    print((folder / MARKDOWN_FILE).read_text(encoding="utf-8"))
    if result:
        print(place(result, Path(config.run or ""), load(folder)))
    print(f"in {folder}")


def finished(folder: Path) -> dict[str, Any]:
    """The result of the run in `folder`; UserError where no run is, or has not finished."""
    load_config(folder)
    return load_result(folder)


def record(config: BaselineConfig, dataset: Dataset, folder: Path) -> None:
    """Leave the numbers as JSON and as Markdown."""
    runtime = start_runtime(config.runtime, config.trainer, outputs=Path(config.outputs))
    rows = measure(config, dataset, runtime)
    trees = version()
    notes = [
        f"{dataset.name}, table {dataset.digest}; {len(dataset.train):,} train rows, of which target means and trees "
        f"use {min(len(dataset.train), config.train_rows):,}; fields, pairs, rate and trees chosen on valid; "
        f"seed {config.seed}; {runtime.describe()}.",
        "An oracle is the click rate of each cell among the very rows that it scores: no model of these fields alone "
        "does better on them.",
        f"Trees by LightGBM {trees}." if trees else f"No boosted trees: {CURE}",
    ]
    content = {"rows": [row._asdict() for row in rows], "notes": notes, **provenance()}
    write_json(folder / JSON_FILE, content)
    write_text(folder / MARKDOWN_FILE, "\n".join([markdown(rows), *notes]))


def load(folder: Path) -> list[Row]:
    return [Row(**row) for row in json.loads((folder / JSON_FILE).read_text(encoding="utf-8"))["rows"]]


def measure(config: BaselineConfig, dataset: Dataset, runtime: Runtime) -> list[Row]:
    """All rows: the click rate, target means, logistic regression, trees, ceilings."""
    table = coded(dataset, train_rows=config.train_rows)
    names = [field.name for field in dataset.schema.fields]
    say(f"target means of {len(names)} fields and {dataset.schema.num_pairs} pairs")
    thin = table.thinned(config.screen_rows)
    chosen = choose(thin, num_fields=config.num_fields, num_pairs=config.num_pairs, smoothing=config.smoothing)
    usual = {name: np.full(len(table.label[name]), logit(np.asarray(table.rate))) for name in ("valid", "test")}
    rows = [scored("click rate of train", "rate", usual, table)]
    for kind, sets in (("field", chosen.fields), ("pair", chosen.pairs)):
        for fields in sets:
            logits = target_mean_logits(table, fields, smoothing=config.smoothing)
            rows.append(scored(" x ".join(names[i] for i in fields), kind, logits, table))
    rows.append(logistic_regression(config, dataset, runtime))
    if version():
        say("boosted trees on out-of-fold target means")
        features = tree_features(table, chosen.pairs, smoothing=config.smoothing, seed=config.seed)
        logits = boosted(features, table.label, config.boosting, threads=runtime.threads, seed=config.seed)
        rows.append(scored("boosted trees on target means", "trees", logits, table))
    else:
        say(f"no boosted trees: {CURE}")
    return rows + ceilings(dataset, table, chosen, names)


def scored(name: str, kind: str, logits: BySplit, table: Coded) -> Row:
    """A row from logits (n,) of valid and test."""
    label = table.label
    return Row(
        name, kind, {s: {"auc": auc(label[s], own), "logloss": logloss(label[s], own)} for s, own in logits.items()}
    )


def logistic_regression(config: BaselineConfig, dataset: Dataset, runtime: Runtime) -> Row:
    """model=lr as `fieldctr train` fits it, with the learning rate that is best on valid: a floor must not be low."""
    fits = [fitted(replace(config.optimizer, lr=rate), config, dataset, runtime) for rate in config.learning_rates]
    return max(fits, key=lambda row: row.scores["valid"]["auc"])


def fitted(optimizer: OptimizerConfig, config: BaselineConfig, dataset: Dataset, runtime: Runtime) -> Row:
    """One fit."""
    say(f"logistic regression, learning rate {optimizer.lr}")
    model = build_model(dataset.schema, dim=1, model=LR, enhancer=None, seed=config.seed)
    Trainer(config.trainer, optimizer, runtime, seed=config.seed).fit(model, dataset.train, dataset.valid)
    scores = {}
    for name, split in (("valid", dataset.valid), ("test", dataset.test)):
        found = evaluate(model, split, batch_size=config.trainer.eval_batch_size, runtime=runtime).metrics
        scores[name] = {metric: found[metric] for metric in ("auc", "logloss")}
    return Row(f"logistic regression (learning rate {optimizer.lr})", "lr", scores)


def place(result: dict[str, Any], folder: Path, rows: list[Row]) -> str:
    """Where a finished run stands; leaves the numbers in its folder."""
    floor, ceiling, best = floor_and_ceiling(rows)
    own, low, high, bar = (scores["test"]["auc"] for scores in (result, floor.scores, ceiling.scores, best.scores))
    share = share_closed(own, low, high)
    numbers = {"test_auc": own, "floor": low, "ceiling": high, "share": share, "best_baseline": bar}
    write_json(folder / "evaluate-baseline.json", numbers)
    return (
        f"{result['model']}, seed {result['seed']}: test AUC {own:.4f}\n"
        f"  {share:.1%} of the way from {label(floor)} {low:.4f} to {label(ceiling)} {high:.4f}\n"
        f"  {own - bar:+.4f} against the best baseline on valid, {label(best)}, {bar:.4f}"
    )


def say(text: str) -> None:
    """Progress goes to stderr, results to stdout."""
    print(text, file=sys.stderr)
