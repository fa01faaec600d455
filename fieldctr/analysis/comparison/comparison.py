"""One comparison of arms as plain values: what comparison.json holds, and tables and pages are made of."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fieldctr.analysis.comparison.arms import Bench, Run
from fieldctr.analysis.comparison.doubt import holm
from fieldctr.analysis.comparison.effects import METRICS, Rows
from fieldctr.analysis.comparison.notes import budget_of, notes_of, settings, unequal_settings
from fieldctr.analysis.comparison.pairs import Measured, Scores, family, groups, measured
from fieldctr.analysis.comparison.sentences import sentence, verdict
from fieldctr.errors import UserError

COUNTED = ("dense", "embedding")  # parameters; trees have none


class Terms(NamedTuple):
    """What a comparison is asked for."""

    by: list[str]
    metrics: list[str]
    split: str
    level: float
    bound: float | None
    unit: str | None  # what a cluster of rows is: user, day; None where each row is alone


def compared(bench: Bench, rows: Rows, scores: Scores, terms: Terms, notes: Sequence[str] = ()) -> dict[str, Any]:
    """All arms against the reference in all metrics."""
    found = {metric: measured(metric, rows, scores) for metric in terms.metrics}
    for one in found.values():
        _refuse_wrong_values(one, bench, terms.split)
    budgets = {name: budget_of(seeds, name) for name, seeds in bench.arms.items()}
    return {
        "dataset": bench.dataset,
        "within": bench.within,
        "split": terms.split,
        "against": bench.against,
        "by": terms.by,
        "metrics": terms.metrics,
        "level": terms.level,
        "bound": terms.bound,
        "arms": [_arm(bench, terms.split, name, found, budgets[name]) for name in _ranked(found, terms.metrics[0])],
        "differences": differences(list(found.values()), bench.against, terms, unequal_settings(bench, terms.by)),
        "groups": {metric: groups(one, level=terms.level) for metric, one in found.items()},
        "notes": [*notes_of(bench, terms.by, budgets), *notes],
    }


def differences(
    found: Sequence[Measured], against: str, terms: Terms, unfair: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """Of every metric all pairs with the reference; Holm's family is these pairs in one metric.

    `unfair` is what a sentence about an arm must say besides.
    """
    records = []
    for one in found:
        pairs = family(one, against, level=terms.level)
        for pair, adjusted in zip(pairs, holm([pair.gap.p for pair in pairs]), strict=True):
            record = {
                "metric": one.metric,
                "arm": pair.arm,
                "against": against,
                "difference": pair.gap.difference,
                "low": pair.gap.low,
                "high": pair.gap.high,
                "p": pair.gap.p,
                "p_holm": adjusted,
                "error": pair.gap.error,
                "error_rows": pair.error_rows,
                "error_seeds": pair.error_seeds,
                "freedom": pair.gap.freedom,
                "num_seeds": pair.num_seeds,
                "num_rows": one.sampling.num_rows,
                "num_clusters": one.sampling.num_clusters,
                "clusters": terms.unit,
                "detectable": pair.detectable,
                "equivalence": pair.equivalence,
                "unfair": (unfair or {}).get(pair.arm, ""),
            }
            records.append(spoken(record, terms))
    return records


def spoken(record: dict[str, Any], terms: Terms) -> dict[str, Any]:
    """With its verdict and its sentence, by p_holm as it stands."""
    record = record | {"verdict": verdict(record, level=terms.level, bound=terms.bound)}
    return record | {"sentence": sentence(record, level=terms.level, bound=terms.bound)}


def _ranked(found: Mapping[str, Measured], metric: str) -> list[str]:
    """Arms, the best first."""
    one = found[metric]
    return sorted(one.values, key=lambda name: -METRICS[metric].better * one.mean(name))


def _arm(
    bench: Bench, split: str, name: str, found: Mapping[str, Measured], budget: dict[str, Any] | None
) -> dict[str, Any]:
    seeds = bench.arms[name]
    results = [run.result for run in seeds.values()]
    first = results[0]
    metrics = {}
    for metric, one in found.items():
        values = list(one.values[name].values())
        sd = statistics.stdev(values) if len(values) > 1 else None
        metrics[metric] = {"mean": statistics.fmean(values), "sd": sd, "values": values}
    auc, base = (
        statistics.fmean(run.result[split]["auc"] for run in bench.arms[one].values()) for one in (name, bench.against)
    )
    return {
        "name": name,
        "seeds": list(seeds),
        "settings": settings(seeds),
        "metrics": metrics,
        "rela_impr": None if base == 0.5 else (auc - 0.5) / (base - 0.5) - 1,
        "valid_auc": _recorded_auc(seeds, "valid"),
        "parameters": {key: first["num_parameters"][key] for key in COUNTED} if "num_parameters" in first else {},
        "flops_per_sample": first.get("flops_per_sample"),
        "seconds": statistics.median(one["fit_seconds"]["train"] for one in results),
        "epoch_seconds": _median(_epoch_seconds(one) for one in results),
        "peak_memory_mb": _median(one.get("peak_memory_mb") for one in results),
        "offline": first.get("offline"),
        "budget": budget,
        "folders": [str(run.folder) for run in seeds.values()],
    }


def _median(found: Iterable[float | None]) -> float | None:
    """Of those that there are."""
    known = [one for one in found if one is not None]
    return statistics.median(known) if known else None


def _epoch_seconds(result: Mapping[str, Any]) -> float | None:
    """Seconds of training that all rows of train once would take; None for what is not trained in steps."""
    samples = result.get("samples")
    return result["fit_seconds"]["train"] * result["num_rows"]["train"] / samples if samples else None


def _recorded_auc(seeds: Mapping[int, Run], split: str) -> float:
    return statistics.fmean(run.result[split]["auc"] for run in seeds.values())


def _refuse_wrong_values(found: Measured, bench: Bench, split: str) -> None:
    """UserError where scores and labels do not give what the run itself recorded: they are not of the same rows."""
    for name, values in found.values.items():
        for seed, value in values.items():
            run = bench.arms[name][seed]
            recorded = run.result[split].get(found.metric)
            if recorded is not None and abs(value - recorded) > 1e-6:
                raise UserError(
                    f"{run.folder}: {found.metric} of its scores on {split} is {value:.6f}, and it recorded "
                    f"{recorded:.6f}. Its table {run.result['data_digest']} was made anew, or its files are of two "
                    "runs: train it again"
                )
