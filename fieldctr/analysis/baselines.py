"""What a model must beat, and what it cannot reach: floors and ceilings of a table, with nothing chosen on test."""

from collections.abc import Iterable
from itertools import combinations
from typing import NamedTuple

import numpy as np

from fieldctr.analysis.oracle import oracle
from fieldctr.analysis.survey import hash_rows
from fieldctr.analysis.target_means import (
    BySplit,
    Coded,
    added,
    cells,
    keys,
    logit,
    mean_of,
    statistic,
)  # fmt: skip
from fieldctr.data.dataset import Dataset
from fieldctr.ranking import auc

Scores = dict[str, dict[str, float]]  # by split: auc, logloss


class Row(NamedTuple):
    """A baseline or a ceiling."""

    name: str
    kind: str  # rate | field | pair | lr | trees; oracle | truth
    scores: Scores


class Chosen(NamedTuple):
    """Positions of fields and pairs, the best first, by the valid AUC of their smoothed target means."""

    fields: list[tuple[int]]
    pairs: list[tuple[int, int]]  # only such as are better than either of their fields


def choose(table: Coded, *, num_fields: int, num_pairs: int, smoothing: float) -> Chosen:
    """Score all fields and pairs on valid; a pair costs about 15 ms per 100,000 train rows."""

    def alone(fields: tuple[int, ...]) -> float:
        return auc(table.label["valid"], mean_of(table, cells(table, fields), "valid", smoothing=smoothing))

    single = {(i,): alone((i,)) for i in range(len(table.sizes))}
    pair = {(i, j): alone((i, j)) for i, j in combinations(range(len(table.sizes)), 2)}
    better = [(i, j) for (i, j), score in pair.items() if score > max(single[i,], single[j,])]
    fields = sorted(single, key=lambda key: -single[key])[:num_fields]
    return Chosen(fields, sorted(better, key=lambda key: -pair[key])[:num_pairs])


def target_mean_logits(table: Coded, fields: tuple[int, ...], *, smoothing: float) -> BySplit:
    """Logits (n,) of valid and test: the smoothed click rate in train of the row's cell."""
    cell = cells(table, fields)
    return {name: logit(mean_of(table, cell, name, smoothing=smoothing)) for name in ("valid", "test")}


def tree_features(table: Coded, pairs: Iterable[tuple[int, int]], *, smoothing: float, seed: int) -> BySplit:
    """(n, K) float32: out-of-fold target means of every field and of the pairs, and log counts of the pairs."""
    rate, columns = table.rate, {name: [] for name in table.label}
    single = [
        statistic(table, cells(table, (i,)), rate, smoothing=smoothing, seed=seed) for i in range(len(table.sizes))
    ]
    crossed = [
        statistic(table, cells(table, (i, j)), added(single[i], single[j], rate), smoothing=smoothing, seed=seed)
        for i, j in pairs
    ]
    for name, column in columns.items():
        column.extend(one.mean[name] for one in (*single, *crossed))
        column.extend(np.log1p(one.count[name]) for one in crossed)
    return {name: np.stack(column, axis=1).astype(np.float32) for name, column in columns.items()}


def ceilings(dataset: Dataset, table: Coded, chosen: Chosen, names: list[str]) -> list[Row]:
    """The in-sample oracles of the chosen sets and of all fields; the true probabilities where they are known."""
    rows = []
    for fields in (*chosen.fields, *chosen.pairs):
        key = keys(table, fields)
        scores = {name: oracle(own, table.label[name]) for name, own in key.items()}
        rows.append(Row(" x ".join(names[i] for i in fields), "oracle", scores))
    splits = {"train": dataset.train, "valid": dataset.valid, "test": dataset.test}
    whole = {name: oracle(hash_rows(split, slice(None)), split.label) for name, split in splits.items()}
    rows.append(Row("all fields", "oracle", whole))
    if "bayes_auc" in dataset.facts:
        best, least = dataset.facts["bayes_auc"], dataset.facts["bayes_logloss"]
        rows.append(Row("true probabilities", "truth", {s: {"auc": best[s], "logloss": least[s]} for s in splits}))
    return rows


def floor_and_ceiling(rows: list[Row]) -> tuple[Row, Row, Row]:
    """Logistic regression; the last ceiling; and the baseline with the best valid AUC."""
    baselines = [row for row in rows if row.kind not in ("oracle", "truth")]
    floor = next(row for row in baselines if row.kind == "lr")
    return floor, rows[-1], max(baselines, key=lambda row: row.scores["valid"]["auc"])


def share_closed(score: float, floor: float, ceiling: float) -> float:
    """Part of the way from floor to ceiling; below 0 under the floor."""
    return (score - floor) / (ceiling - floor)


def markdown(rows: list[Row]) -> str:
    """Two tables: baselines, and ceilings."""
    columns = [(split, metric) for split in ("valid", "test") for metric in ("auc", "logloss")]
    head = " | ".join(f"{split} {'AUC' if metric == 'auc' else 'LogLoss'}" for split, metric in columns)
    lines = []
    for title, wanted in (("baseline", False), ("ceiling", True)):
        lines += [f"| {title} | {head} |", "|---|---|---|---|---|"]
        for row in rows:
            if (row.kind in ("oracle", "truth")) == wanted:
                numbers = " | ".join(f"{row.scores[split][metric]:.4f}" for split, metric in columns)
                lines.append(f"| {label(row)} | {numbers} |")
        lines.append("")
    return "\n".join(lines)


def label(row: Row) -> str:
    """What a row is, in words."""
    return {
        "field": f"target mean of {row.name}",
        "pair": f"target mean of {row.name}",
        "oracle": f"oracle of {row.name}",
    }.get(row.kind, row.name)
