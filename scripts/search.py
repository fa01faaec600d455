"""Search settings for models on a dataset: a grid of equal size for each, chosen on validation, written to conf/tuned.

    python scripts/search.py --dataset kuairand --models fm fat
    python scripts/search.py --dataset kuairand --models fm --arms none llactr llactr_permuted

The second searches the arms of experiment llactr_table on top of that, into conf/arm. Runs `fieldctr train -m` once for
each model (and arm) with the grid of scripts/search_spaces.yaml and a seed that no table uses. Reads nothing but the
validation metrics of the finished runs.
"""

import argparse
import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
SPACES = yaml.safe_load((ROOT / "scripts/search_spaces.yaml").read_text(encoding="utf-8"))
SEED = 1000  # tables use 1, 2, 3, ...


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="kuairand")
    parser.add_argument("--models", nargs="+", default=list(SPACES["models"]), choices=list(SPACES["models"]))
    parser.add_argument("--arms", nargs="+", help="enhancers of experiment llactr_table instead of models alone")
    arguments = parser.parse_args()
    same = {key: [value] for key, value in SPACES["fixed"].get(arguments.dataset, {}).items()}
    for model in arguments.models:
        if not arguments.arms:
            grid, name = SPACES["models"][model] | same, f"{arguments.dataset}_{model}"
            search(name, {"model": model, "dataset": arguments.dataset, "tuned": "none"}, grid, "tuned")
        for arm in arguments.arms or []:
            grid = SPACES["arms"]["none" if arm == "none" else "llactr"]
            fixed = {"model": model, "dataset": arguments.dataset, "enhancer": arm}
            search(f"llactr_table_{arguments.dataset}_{model}_{arm}", fixed, grid, "arm")


def search(name: str, fixed: dict[str, str], grid: dict[str, list[Any]], group: str) -> None:
    """Run the grid, or what is missing of it, and write the best settings as conf/<group>/<name>.yaml."""
    trials = math.prod(map(len, grid.values()))
    budget = SPACES["budget"] if group == "tuned" else SPACES["arms"]["budget"]
    if trials != budget:
        raise SystemExit(f"{name}: {trials} trials, but the budget is {budget} for each")
    folder, began = ROOT / "outputs/search" / name, time.monotonic()
    sweep = [f"{key}={','.join(map(str, values))}" for key, values in grid.items()]
    same = [*(f"{key}={value}" for key, value in fixed.items()), f"seed={SEED}", "tracker=none", "resume=true"]
    command = [Path(sys.executable).parent / "fieldctr", "train", "-m", *same, *sweep, f"hydra.sweep.dir={folder}"]
    subprocess.run(command, check=True)
    runs = [read(path) for path in folder.glob("*/result.json")]
    if len(runs) != trials:
        raise SystemExit(f"{folder}: {len(runs)} of {trials} trials finished")
    for auc, config in sorted(runs, key=lambda run: -run[0]):
        print(f"{auc:.4f}  {chosen(config, grid)}")
    what = ", ".join(value for key, value in fixed.items() if key != "tuned")
    text = f"# Settings of {what}: best validation AUC of {trials} trials.\n"
    write(ROOT / f"conf/{group}/{name}.yaml", text, max(runs, key=lambda run: run[0]), grid, time.monotonic() - began)


def read(path: Path) -> tuple[float, dict[str, Any]]:
    """Validation AUC and configuration of one run. The file holds test metrics too: they stay unread."""
    result = json.loads(path.read_text(encoding="utf-8"))
    return result["valid"]["auc"], json.loads((path.parent / "config.json").read_text(encoding="utf-8"))


def chosen(config: dict[str, Any], grid: dict[str, list[Any]]) -> dict[str, Any]:
    """The grid's keys with the values that a run took."""
    return {key: config[key.split(".")[0]][key.split(".")[1]] for key in grid}


def write(
    path: Path, text: str, best: tuple[float, dict[str, Any]], grid: dict[str, list[Any]], seconds: float
) -> None:
    nodes: dict[str, dict[str, Any]] = {}
    for key, value in chosen(best[1], grid).items():
        node, _, leaf = key.partition(".")
        nodes.setdefault(node, {})[leaf] = value
    head = f"# @package _global_\n{text}# Run   python scripts/search.py {' '.join(sys.argv[1:])}\n"
    seen = f"# Cost  {seconds / 60:.0f} minutes\n# Seen  valid AUC {best[0]:.4f} (seed {SEED})\n"
    path.write_text(head + seen + yaml.safe_dump(nodes, sort_keys=False), encoding="utf-8")
    print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
