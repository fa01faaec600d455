"""Run experiment llactr_table and write its table into conf/experiment/README.md: is LLaCTR's gain due to the names?

    python scripts/search.py --dataset kuairand --models fm deepfm fwfm fmfm finalmlp wukong \\
        --arms none llactr llactr_untuned llactr_random llactr_permuted
    python scripts/llactr_table.py --dataset kuairand

Runs that are finished are not run again. Each cell is the mean over seeds of an arm's test AUC minus that of no
enhancer with the same seed, in points (AUC x 100), and the half width of its 95 % interval (Student's t, paired by
seed). The last column is what the names' meaning is worth: tuned vectors minus permuted ones.
"""

import argparse
import statistics
import subprocess
import sys
from collections import Counter
from typing import Any

from results import ROOT, commits, insert, points, read

from fieldctr.analysis.scaling.report import table as markdown

ARMS = ["llactr", "llactr_untuned", "llactr_random", "llactr_permuted"]
Found = dict[tuple[str, str, int], dict[str, Any]]  # (model, enhancer, seed) -> result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="kuairand")
    parser.add_argument("--sweep", nargs="*", default=[], help="overrides, such as seed=1,2 model=fm")
    arguments = parser.parse_args()
    folder = ROOT / "outputs/results" / f"llactr_table_{arguments.dataset}"
    fixed = ["experiment=llactr_table", f"dataset={arguments.dataset}", "resume=true", f"hydra.sweep.dir={folder}"]
    # A name that says which run it is: finished ones are found again, whatever part of the sweep is asked for.
    subdir = "hydra.sweep.subdir=${hydra:runtime.choices.model}_${hydra:runtime.choices.enhancer}_seed${seed}"
    command = [f"{sys.prefix}/bin/fieldctr", "train", "-m", *fixed, subdir, *arguments.sweep]
    subprocess.run(command, check=True)
    results = [read(path) for path in sorted(folder.glob("*/result.json"))]
    found = {(r["model"], r["enhancer"], r["seed"]): r for r in results}
    text = table(found, arguments.dataset)
    print(text)
    insert(text, f"results llactr {arguments.dataset}")


def table(found: Found, dataset: str) -> str:
    """A Markdown table, one row a backbone."""
    models = list(dict.fromkeys(model for model, _, _ in found))
    arms = [arm for arm in ARMS if any(key[1] == arm for key in found)]
    heads = ["backbone", "none: test AUC", *(f"{arm.removeprefix('llactr_')} - none" for arm in arms)]
    lines = []
    for model in models:
        alone = [result["test"]["auc"] for key, result in found.items() if key[:2] == (model, "none")]
        cells = [difference(found, model, arm, "none") for arm in arms]
        spread = f"{statistics.fmean(alone):.4f} ± {statistics.stdev(alone):.4f}"
        lines.append([f"`{model}`", spread, *cells, difference(found, model, "llactr", "llactr_permuted")])
    some = next(iter(found.values()))
    seeds = sorted(Counter((model, arm) for model, arm, _ in found).values())
    often = f"{seeds[0]} to {seeds[-1]}" if seeds[0] < seeds[-1] else str(seeds[0])
    origin = f"{some['runtime']}; commit {commits(found.values())}; table {some['data_digest'][:16]}"
    note = (
        f"{dataset}, {len(found)} runs, {often} seeds a cell; differences in points of AUC (x 100), mean and 95 % "
        "interval over seeds, bold where it leaves zero out. "
        "Each arm, none too, took its settings by validation AUC: 8 trials of the backbone, 4 of the arm. "
        f"{origin}."
    )
    return "\n".join([markdown([*heads, "llactr - permuted"], lines), "", note])


def difference(found: Found, model: str, arm: str, base: str) -> str:
    """'+0.05 ± 0.03' over the seeds that both have."""
    before, after = (
        {seed: result for (name, enhancer, seed), result in found.items() if (name, enhancer) == (model, kind)}
        for kind in (base, arm)
    )
    return points(before, after)


if __name__ == "__main__":
    main()
