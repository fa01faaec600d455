"""Train rows of a table over several seeds and write it into conf/experiment/README.md, each against one, seed by seed.

    python scripts/results.py --dataset kuairand --seeds 1 2 3 4 5
    python scripts/results.py --dataset kuairand --table ablation

A row is a model and what else it overrides, such as "fat ablation=fat_full"; its settings are those of conf/tuned.
The row lightgbm is `fieldctr baseline`: trees on out-of-fold target means. Runs that are finished are not run again
(outputs/results/<dataset>). The table gives the mean over seeds, their standard deviation, and in points of AUC the
difference to the row --against with its 95 % interval (Student's t, paired by seed): what training noise leaves open.
The sampling noise of the test split itself comes on top: the last line gives it (DeLong, on the scores of one seed).
RelaImpr is over logistic regression.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from fieldctr.analysis.scaling.report import table as markdown
from fieldctr.analysis.significance import delong, paired
from fieldctr.training.metrics import rela_impr

ROOT = Path(__file__).parents[1]
FIELDCTR = Path(sys.executable).parent / "fieldctr"
MODELS = "lr fm fwfm fmfm deepfm dcnv2 finalmlp wukong autoint transformer fat"
PARTS = sorted(path.stem for path in (ROOT / "conf/ablation").glob("fat_*.yaml") if path.stem != "fat_full")
STATISTICS = ["deepfm dataset=kuairand_stats", "fat dataset=kuairand_stats"]
ROWS = {
    "results": [*MODELS.split(), "lightgbm", *STATISTICS],
    "ablation": ["fat", *(f"fat ablation={part}" for part in PARTS)],
}
Runs = dict[str, dict[int, dict[str, Any]]]  # row -> seed -> result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="kuairand")
    parser.add_argument("--table", default="results", choices=ROWS)
    parser.add_argument("--rows", nargs="+", help="other rows than the table's")
    parser.add_argument("--against", default="fat")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    asked = parser.parse_args()
    rows = asked.rows or ROWS[asked.table]
    if asked.against not in rows:
        raise SystemExit(f"--against '{asked.against}' is no row. Rows: {', '.join(rows)}")
    runs = {row: (trees if row == "lightgbm" else trained)(row, asked.dataset, asked.seeds) for row in rows}
    text = table(runs, asked.dataset, asked.against)
    print(text)
    insert(text, f"{asked.table} {asked.dataset}")


def trained(row: str, dataset: str, seeds: list[int]) -> dict[int, dict[str, Any]]:
    """The results of a row by seed, trained where they are missing."""
    model, *own = row.split()
    folder = ROOT / "outputs/results" / dataset / re.sub(r"\W+", "_", row)
    table = [] if any(key.startswith("dataset=") for key in own) else [f"dataset={dataset}"]
    sweep = [f"seed={','.join(map(str, seeds))}", f"hydra.sweep.dir={folder}", "hydra.sweep.subdir=seed${seed}"]
    fixed = [f"model={model}", *table, *own, "tracker=none", "resume=true"]
    subprocess.run([FIELDCTR, "train", "-m", *fixed, *sweep], check=True)
    return {seed: read(folder / f"seed{seed}/result.json") | {"folder": folder / f"seed{seed}"} for seed in seeds}


def trees(_: str, dataset: str, seeds: list[int]) -> dict[int, dict[str, Any]]:
    """The baseline's boosted trees by seed, in the form of a run's result."""
    found = {}
    for seed in seeds:
        command = [FIELDCTR, "baseline", f"dataset={dataset}", f"seed={seed}"]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        content = read(Path(said.rstrip().rpartition("\nin ")[2]) / "baseline.json")
        found[seed] = next(row for row in content["rows"] if row["kind"] == "trees")["scores"] | content
    return found


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def table(runs: Runs, dataset: str, against: str) -> str:
    """A Markdown table, one line a row, best mean last."""
    order = sorted(runs, key=lambda row: mean(runs[row], "test", "auc"))
    head = ["row", "test AUC ± sd", f"minus `{against}`", "RelaImpr", "LogLoss", "gAUC", "valid AUC", "dense"]
    all_runs = [result for results in runs.values() for result in results.values()]
    some = next(result for result in all_runs if "runtime" in result)
    return "\n".join(
        [
            markdown(head, [line(row, runs, against) for row in order]),
            "",
            f"{dataset}, {len(runs[against])} seeds each, settings of conf/tuned (8 trials for each model, validation "
            "AUC); differences in points of AUC (x 100), mean and 95 % interval over seeds, bold where it leaves zero "
            f"out; dense parameters; {some['runtime']}; commit {commits(all_runs)}; table {some['data_digest']}.",
            over_rows(runs, against),
        ]
    ).rstrip()


def over_rows(runs: Runs, against: str) -> str:
    """What another test split of this size would leave open of the differences to a row, by the first seed's scores."""
    first = {row: next(iter(results.values())) for row, results in runs.items()}
    label, base = tested(first[against])
    halves = []
    for row, result in first.items():
        if row != against and "folder" in result:
            own, scores = tested(result)
            if np.array_equal(label, own):
                gap = delong(label, base, scores)
                halves.append((gap.high - gap.low) / 2)
    if not halves:
        return ""
    return f"Over other test rows, differences of AUC hold to ± {min(halves):.4f} to {max(halves):.4f} (95 %, DeLong)."


def tested(result: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores of a run on test."""
    table = ROOT / "outputs/data" / result["data_digest"]
    return np.load(table / "test.label.npy"), np.load(result["folder"] / "test.scores.npy")


def line(row: str, runs: Runs, against: str) -> list[str]:
    """The cells of one row; '-' where it has no such number."""
    results = runs[row]
    auc = [result["test"]["auc"] for result in results.values()]
    first, centre = next(iter(results.values())), statistics.fmean(auc)
    return [
        f"`{row}`",
        f"{centre:.4f} ± {statistics.stdev(auc):.4f}",
        points(runs[against], results),
        f"{rela_impr(centre, mean(runs['lr'], 'test', 'auc')):+.1%}" if "lr" in runs else "-",
        f"{mean(results, 'test', 'logloss'):.4f}",
        f"{mean(results, 'test', 'gauc'):.4f}" if "gauc" in first["test"] else "-",
        f"{mean(results, 'valid', 'auc'):.4f}",
        f"{first['num_parameters']['dense']:,}" if "num_parameters" in first else "-",
    ]


def commits(results: Iterable[dict[str, Any]]) -> str:
    return ", ".join(sorted({(result["commit"] or "no commit")[:10] for result in results}))


def mean(results: dict[int, dict[str, Any]], split: str, name: str) -> float:
    return statistics.fmean(result[split][name] for result in results.values())


def points(base: dict[int, dict[str, Any]], other: dict[int, dict[str, Any]]) -> str:
    """'+0.05 ± 0.03' points of AUC over the seeds that both have; '-' for a row against itself, or below two seeds."""
    seeds = [seed for seed in base if seed in other]
    if base is other or len(seeds) < 2:
        return "-"
    gap = paired(*([100 * results[seed]["test"]["auc"] for seed in seeds] for results in (base, other)))
    half = (gap.high - gap.low) / 2
    text = f"{gap.difference:+.2f} ± {half:.2f}"
    return f"**{text}**" if abs(gap.difference) > half else text


def insert(text: str, mark: str) -> None:
    """Replace what stands in conf/experiment/README.md between the comment that carries the mark and the next end."""
    path = ROOT / "conf/experiment/README.md"
    pattern = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- end -->)", re.DOTALL)
    page, count = pattern.subn(lambda match: f"{match[1]}{text}\n{match[2]}", path.read_text(encoding="utf-8"))
    if count != 1:
        raise SystemExit(f"{path} has {count} places marked '{mark}', expected one")
    path.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
