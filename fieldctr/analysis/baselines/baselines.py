"""What a model must beat, and what it cannot reach: floors and ceilings of a table, with nothing chosen on test."""

from collections.abc import Iterable
from itertools import combinations
from typing import NamedTuple

import numpy as np

from fieldctr.analysis.baselines.oracle import by_chance, oracle
from fieldctr.analysis.baselines.target_means import (
    BySplit,
    Discretized,
    added,
    cells,
    keys,
    logit,
    mean_of,
    statistic,
)  # fmt: skip
from fieldctr.analysis.lint.survey import hash_rows
from fieldctr.data.dataset import Dataset
from fieldctr.ranking import auc

Scores = dict[str, dict[str, float]]  # by split: auc, logloss; of an oracle on valid also by_chance
MEMORY = 0.75  # AUC on shuffled labels, half of the way to 1: an oracle that reaches it says nothing


class Row(NamedTuple):
    """A baseline or a ceiling."""

    name: str
    kind: str  # rate | field | pair | lr | trees; oracle | truth
    scores: Scores


class Chosen(NamedTuple):
    """Positions of fields and pairs, the best first, by the valid AUC of their smoothed target means."""

    fields: list[tuple[int]]
    pairs: list[tuple[int, int]]  # only such as are better than either of their fields


def choose(table: Discretized, *, num_fields: int, num_pairs: int, smoothing: float) -> Chosen:
    """Score all fields and pairs on valid; a pair costs about 15 ms per 100,000 train rows."""

    def alone(fields: tuple[int, ...]) -> float:
        mean = mean_of(table, cells(table, fields), "valid", smoothing=smoothing)
        return auc(table.label["valid"], mean, table.weight_of("valid"))

    single = {(i,): alone((i,)) for i in range(len(table.sizes))}
    pair = {(i, j): alone((i, j)) for i, j in combinations(range(len(table.sizes)), 2)}
    better = [(i, j) for (i, j), score in pair.items() if score > max(single[i,], single[j,])]
    fields = sorted(single, key=lambda key: -single[key])[:num_fields]
    return Chosen(fields, sorted(better, key=lambda key: -pair[key])[:num_pairs])


def target_mean_logits(table: Discretized, fields: tuple[int, ...], *, smoothing: float) -> BySplit:
    """Logits (n,) of valid and test: the smoothed click rate in train of the row's cell."""
    cell = cells(table, fields)
    return {name: logit(mean_of(table, cell, name, smoothing=smoothing)) for name in ("valid", "test")}


def tree_features(table: Discretized, pairs: Iterable[tuple[int, int]], *, smoothing: float, seed: int) -> BySplit:
    """(n, features) float32: out-of-fold target means of every field and of the pairs, and log counts of the pairs."""
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


def ceilings(
    dataset: Dataset, table: Discretized, chosen: Chosen, names: list[str]
) -> tuple[list[Row], dict[str, float]]:
    """The in-sample oracles of the chosen sets and of all fields; the true probabilities where they are known.

    Left out are the oracles that shuffled labels bring to MEMORY on valid: their names, and how far.
    """
    rows, left_out = [], {}
    splits = {"train": dataset.train, "valid": dataset.valid, "test": dataset.test}
    sets = {" x ".join(names[i] for i in fields): keys(table, fields) for fields in (*chosen.fields, *chosen.pairs)}
    sets["all fields"] = {name: hash_rows(split, slice(None)) for name, split in splits.items() if name != "train"}
    for name, key in sets.items():
        chance = by_chance(key["valid"], table.label["valid"], table.weight_of("valid"))
        if chance >= MEMORY:
            left_out[name] = chance
            continue
        scores = {split: oracle(key[split], table.label[split], table.weight_of(split)) for split in ("valid", "test")}
        scores["valid"]["by_chance"] = chance
        rows.append(Row(name, "oracle", scores))
    if "bayes_auc" in dataset.facts:
        best, least = dataset.facts["bayes_auc"], dataset.facts["bayes_logloss"]
        rows.append(Row("true probabilities", "truth", {s: {"auc": best[s], "logloss": least[s]} for s in splits}))
    return rows, left_out


def floor_and_ceiling(rows: list[Row]) -> tuple[Row, Row | None, Row]:
    """Logistic regression, or the best where it was not fitted; a ceiling above it; and the best baseline, by AUC on
    valid.

    The ceiling is the truth where it is known, else the highest oracle; None where none is above the floor on valid.
    """
    baselines = [row for row in rows if row.kind not in ("oracle", "truth")]
    best = max(baselines, key=_valid_auc)
    floor = next((row for row in baselines if row.kind == "lr"), best)
    truth = [row for row in rows if row.kind == "truth"]
    above = [row for row in truth or rows if row.kind in ("oracle", "truth") and _valid_auc(row) > _valid_auc(floor)]
    return floor, max(above, key=_valid_auc, default=None), best


def _valid_auc(row: Row) -> float:
    return row.scores["valid"]["auc"]


def share_closed(score: float, floor: float, ceiling: float) -> float:
    """Part of the way from floor to ceiling; below 0 under the floor."""
    return (score - floor) / (ceiling - floor)


def markdown(rows: list[Row]) -> str:
    """Two tables: baselines, and ceilings with what shuffled labels bring."""
    columns = [(split, metric) for split in ("valid", "test") for metric in ("auc", "logloss")]
    head = " | ".join(f"{split} {'AUC' if metric == 'auc' else 'LogLoss'}" for split, metric in columns)
    lines = []
    for title, wanted in (("baseline", False), ("ceiling", True)):
        lines += [f"| {title} | {head}{' | by chance' * wanted} |", "|---|---|---|---|---|" + "---|" * wanted]
        for row in rows:
            if (row.kind in ("oracle", "truth")) == wanted:
                numbers = [f"{row.scores[split][metric]:.4f}" for split, metric in columns]
                if wanted:
                    chance = row.scores["valid"].get("by_chance")
                    numbers.append("-" if chance is None else f"{chance:.4f}")
                lines.append(f"| {label(row)} | {' | '.join(numbers)} |")
        lines.append("")
    return "\n".join(lines)


def label(row: Row) -> str:
    """What a row is, in words."""
    return {
        "field": f"target mean of {row.name}",
        "pair": f"target mean of {row.name}",
        "oracle": f"oracle of {row.name}",
    }.get(row.kind, row.name)
