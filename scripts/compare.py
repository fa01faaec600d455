"""Compare the arms of a finished sweep, seed by seed: a Markdown table on stdout.

    python scripts/compare.py outputs/train/with --arm model.phi --within train_rows --against learned
    python scripts/compare.py outputs/train/SWEEP --arm model --within schema.change --against transformer

An arm, and a condition that stays the same within a comparison, is what keys of the runs' configuration say, or
the name of the model, the enhancer or the dataset. A cell is the mean of an arm minus that of --against with the same
seeds, in points of test AUC, and the half width of its 95 % interval (Student's t); bold where it leaves zero out.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

from results import points, read

from fieldctr.analysis.scaling.report import table as markdown

CHOICES = ("model", "enhancer", "dataset")  # what result.json names
Cells = dict[tuple[str, str], dict[int, dict[str, Any]]]  # (condition, arm) -> seed -> result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="of sweeps")
    parser.add_argument("--arm", nargs="+", required=True)
    parser.add_argument("--within", nargs="+", default=[])
    parser.add_argument("--against", required=True)
    asked = parser.parse_args()
    cells: Cells = {}
    for path in sorted(path for folder in asked.folders for path in folder.glob("*/result.json")):
        result, config = read(path), read(path.parent / "config.json")
        place = label(result, config, asked.within), label(result, config, asked.arm)
        cells.setdefault(place, {})[result["seed"]] = result
    arms = list(dict.fromkeys(arm for _, arm in cells))
    if asked.against not in arms:
        raise SystemExit(f"--against {asked.against} is no arm of {len(cells)} cells. Arms: {', '.join(arms)}")
    print(compared(cells, arms, asked.against, asked.within))


def label(result: dict[str, Any], config: dict[str, Any], keys: list[str]) -> str:
    """The values of the keys, joined by commas."""
    return ",".join(str(result[key] if key in CHOICES else leaf(config, key)) for key in keys)


def leaf(config: dict[str, Any], key: str) -> Any:
    node: Any = config
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def compared(cells: Cells, arms: list[str], against: str, within: list[str]) -> str:
    """One row a condition: the arm that the others are compared with, then their differences."""
    others = [arm for arm in arms if arm != against]
    head, lines = [",".join(within) or "all", f"{against}: test AUC", *(f"{arm} - {against}" for arm in others)], []
    for condition in sorted({place for place, _ in cells}, key=lambda text: (len(text), text)):
        base = cells.get((condition, against), {})
        auc = [result["test"]["auc"] for result in base.values()]
        spread = f"{statistics.fmean(auc):.4f} ± {statistics.stdev(auc):.4f}" if len(auc) > 1 else "-"
        lines.append([condition or "-", spread, *(points(base, cells.get((condition, arm), {})) for arm in others)])
    return markdown(head, lines)


if __name__ == "__main__":
    main()
