"""Search settings for models on a dataset: a grid of equal size for each, chosen on validation, written to conf/tuned.

    python scripts/search.py --dataset kuairand --models fm fat

Runs `fieldctr train -m` once per model with the grid of scripts/search_spaces.yaml and a seed that no table uses.
Reads nothing but the validation metrics of the finished runs.
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
    arguments = parser.parse_args()
    same = {key: [value] for key, value in SPACES["fixed"].get(arguments.dataset, {}).items()}
    for model in arguments.models:
        search(arguments.dataset, model, SPACES["models"][model] | same)


def search(dataset: str, model: str, grid: dict[str, list[Any]]) -> None:
    """Run the grid, or what is missing of it, and write the best settings as YAML."""
    trials = math.prod(len(values) for values in grid.values())
    if trials != SPACES["budget"]:
        raise SystemExit(f"{model}: {trials} trials, but the budget of every model is {SPACES['budget']}")
    folder = ROOT / "outputs/search" / f"{dataset}_{model}"
    sweep = [f"{key}={','.join(map(str, values))}" for key, values in grid.items()]
    fixed = [f"model={model}", f"dataset={dataset}", f"seed={SEED}", "tracker=none", "resume=true", "tuned=none"]
    began = time.monotonic()
    subprocess.run(
        [Path(sys.executable).parent / "fieldctr", "train", "-m", *fixed, *sweep, f"hydra.sweep.dir={folder}"],
        check=True,
    )
    runs = [read(path) for path in folder.glob("*/result.json")]
    if len(runs) != trials:
        raise SystemExit(f"{folder}: {len(runs)} of {trials} trials finished")
    for auc, config in sorted(runs, key=lambda run: -run[0]):
        print(f"{auc:.4f}  {chosen(config, grid)}")
    write(dataset, model, max(runs, key=lambda run: run[0]), grid, (time.monotonic() - began) / 60)


def read(path: Path) -> tuple[float, dict[str, Any]]:
    """Validation AUC and configuration of one run. The file holds test metrics too: they stay unread."""
    result = json.loads(path.read_text(encoding="utf-8"))
    return result["valid"]["auc"], json.loads((path.parent / "config.json").read_text(encoding="utf-8"))


def chosen(config: dict[str, Any], grid: dict[str, list[Any]]) -> dict[str, Any]:
    """The grid's keys with the values that a run took."""
    return {key: config[key.split(".")[0]][key.split(".")[1]] for key in grid}


def write(
    dataset: str, model: str, best: tuple[float, dict[str, Any]], grid: dict[str, list[Any]], minutes: float
) -> None:
    nodes: dict[str, dict[str, Any]] = {}
    for key, value in chosen(best[1], grid).items():
        node, _, leaf = key.partition(".")
        nodes.setdefault(node, {})[leaf] = value
    path = ROOT / "conf/tuned" / f"{dataset}_{model}.yaml"
    path.write_text(
        "# @package _global_\n"
        f"# Settings of {model} on {dataset}: best validation AUC of {SPACES['budget']} trials.\n"
        f"# Run   python scripts/search.py --dataset {dataset} --models {model}\n"
        f"# Cost  {minutes:.0f} minutes\n"
        f"# Seen  valid AUC {best[0]:.4f} (seed {SEED})\n" + yaml.safe_dump(nodes, sort_keys=False),
        encoding="utf-8",
    )
    print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
