"""Train every model over several seeds with its tuned settings and write the table of results into README.md.

    python scripts/results.py --dataset kuairand --seeds 1 2 3 4 5

Runs that are finished are not run again (outputs/results/<dataset>). The table gives the mean over seeds, their
standard deviation, and the 95 % interval of the mean (Student's t): what training noise leaves open. The sampling
noise of the test split itself comes on top. RelaImpr is over logistic regression.
"""

import argparse
import json
import math
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from fieldctr.analysis.significance import student_quantile
from fieldctr.training.metrics import rela_impr

ROOT = Path(__file__).parents[1]
MODELS = ["lr", "fm", "fwfm", "fmfm", "deepfm", "transformer", "fat"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="kuairand")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    arguments = parser.parse_args()
    folder = ROOT / "outputs/results" / arguments.dataset
    for model in arguments.models:
        seeds = f"seed={','.join(map(str, arguments.seeds))}"
        fixed = [f"model={model}", f"dataset={arguments.dataset}", "tracker=none", "resume=true"]
        command = [Path(sys.executable).parent / "fieldctr", "train", "-m", *fixed, seeds]
        subprocess.run([*command, f"hydra.sweep.dir={folder / model}"], check=True)
    runs = {model: [read(path) for path in (folder / model).glob("*/result.json")] for model in arguments.models}
    text = table(runs, arguments.dataset)
    print(text)
    insert(text, f"results {arguments.dataset}")


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def table(runs: dict[str, list[dict[str, Any]]], dataset: str) -> str:
    """A Markdown table, one row a model, best mean last."""
    lines = [
        "| model | test AUC ± sd | 95 % of the mean | RelaImpr | LogLoss | gAUC | valid AUC | dense parameters |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for model, results in sorted(runs.items(), key=lambda item: mean(item[1], "test", "auc")):
        auc = [result["test"]["auc"] for result in results]
        half = student_quantile(0.975, len(auc) - 1) * statistics.stdev(auc) / math.sqrt(len(auc))
        centre = statistics.fmean(auc)
        impr = f"{rela_impr(centre, mean(runs['lr'], 'test', 'auc')):+.1%}" if "lr" in runs else "-"
        lines.append(
            f"| `{model}` | {centre:.4f} ± {statistics.stdev(auc):.4f} | {centre - half:.4f} to {centre + half:.4f} "
            f"| {impr} | {mean(results, 'test', 'logloss'):.4f} | {mean(results, 'test', 'gauc'):.4f} "
            f"| {mean(results, 'valid', 'auc'):.4f} | {results[0]['num_parameters']['dense']:,} |"
        )
    some = next(iter(runs.values()))
    commits = sorted({(result["commit"] or "no commit")[:10] for results in runs.values() for result in results})
    return "\n".join(
        [
            *lines,
            "",
            f"{dataset}, {len(some)} seeds each, settings by one search for each model (8 trials, validation AUC); "
            f"{some[0]['runtime']}; commit {', '.join(commits)}; table {some[0]['data_digest']}.",
        ]
    )


def mean(results: list[dict[str, Any]], split: str, name: str) -> float:
    return statistics.fmean(result[split][name] for result in results)


def insert(text: str, mark: str) -> None:
    """Replace what stands between the two comments of README.md that carry the mark."""
    path = ROOT / "README.md"
    pattern = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- end -->)", re.DOTALL)
    readme, count = pattern.subn(lambda match: f"{match[1]}{text}\n{match[2]}", path.read_text(encoding="utf-8"))
    if count != 1:
        raise SystemExit(f"README.md has {count} places marked '{mark}', expected one")
    path.write_text(readme, encoding="utf-8")


if __name__ == "__main__":
    main()
