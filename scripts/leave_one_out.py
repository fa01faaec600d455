"""Leave one table out: would a default, chosen on all other tables, hold on this one?

    fieldctr study study=rates                                         # grids on the tables at hand; test stays sealed
    fieldctr study study=left_out_rates --config-dir FOLDER/conf       # and on others: scripts/public_tables.py
    python scripts/leave_one_out.py outputs/studies/rates outputs/studies/left_out_rates

A search with sampler=grid tries the same points on every table. The regret of a point is what its valid AUC is below
the best of that table. For each table the point with the smallest mean regret on all others is chosen, and told is its
regret on the table itself, beside that of the model's default. The result goes into conf/study/README.md.
"""

import argparse
import json
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fieldctr import compose
from fieldctr.analysis.scaling.report import table as markdown
from fieldctr.config import flat
from fieldctr.runs import load_result
from fieldctr.studies.plan import SEARCH
from fieldctr.studies.spaces import words_of

PAGE = Path(__file__).parents[1] / "conf/study/README.md"
PLACE = r"(?<=<!-- leave one out -->\n).*?(?=<!-- end -->)"

Points = Mapping[str, float]  # what a number is of each point of a grid: optimizer.lr=0.001


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+", type=Path, help="folders of studies whose searches are grids")
    text = told(parser.parse_args().studies)
    print(text)
    page, places = re.subn(PLACE, lambda _: f"{text}\n", PAGE.read_text(encoding="utf-8"), count=1, flags=re.S)
    if not places:
        raise SystemExit(f"{PAGE} has no place <!-- leave one out --> ... <!-- end -->")
    PAGE.write_text(page, encoding="utf-8")


def told(studies: Iterable[Path]) -> str:
    """A line for each arm of the studies, whichever tables each of them has; and what the numbers rest on."""
    scores: dict[str, dict[str, Points]] = {}
    defaults: dict[str, str] = {}
    runs: list[dict[str, Any]] = []
    for folder in studies:
        asked, record = (json.loads((folder / name).read_text()) for name in ("study.json", "record.json"))
        for search in record["searches"]:
            arm, dataset, trials = search["arm"], search["dataset"], search["trials"]
            if asked["sampler"] != "grid" or any(one["state"] == "open" for one in trials):
                raise SystemExit(f"{folder}: expected a study with sampler=grid that has run to its end")
            scores.setdefault(arm, {})[dataset] = points_of(trials)
            defaults[arm] = default_of(asked["arms"][arm]["overrides"], trials[0]["params"])
            paths = sorted((folder / SEARCH / dataset / arm).glob("*/result.json"))
            runs += [load_result(path.parent) for path in paths]
    tables = [*dict.fromkeys(name for found in scores.values() for name in found)]
    head = ["model", "default", "its regret", "best on all", "its regret", "left out", *tables]
    lines = [line(arm, regrets(found), defaults[arm], tables) for arm, found in scores.items()]
    return f"{markdown(head, lines)}\n\n{basis(runs, scores)}"


def points_of(trials: Iterable[Mapping[str, Any]]) -> Points:
    """The valid AUC of each point; -inf of one that could not be trained."""
    return {" ".join(words_of(one["params"])): one["valid"]["auc"] if one["valid"] else -math.inf for one in trials}


def default_of(words: Iterable[str], keys: Iterable[str]) -> str:
    """What the configuration brings for these keys, as a point of the grid is named."""
    node = flat(compose("train", [*words, "tuned=none"]))
    return " ".join(words_of({key: node[key] for key in keys}))


def regrets(scores: Mapping[str, Points]) -> dict[str, Points]:
    """By table, in the order of the points; infinite where one could not be trained: no default may fail somewhere."""
    best = {name: max(own.values()) for name, own in scores.items()}
    return {name: {point: best[name] - own[point] for point in sorted(own)} for name, own in scores.items()}


def chosen(found: Mapping[str, Points], names: Iterable[str]) -> str:
    """The point with the smallest mean regret on these tables."""
    own = [found[name] for name in names]
    return min(own[0], key=lambda point: statistics.fmean(one[point] for one in own))


def left_out(found: Mapping[str, Points]) -> dict[str, float]:
    """By table, the regret there of what is chosen on all others."""
    return {name: found[name][chosen(found, (one for one in found if one != name))] for name in found}


def line(arm: str, found: Mapping[str, Points], default: str, tables: Iterable[str]) -> list[str]:
    """An arm's cells; those of tables have the regret left out, and that of the default in brackets."""
    if len(found) < 2 or default not in next(iter(found.values())):
        raise SystemExit(f"{arm}: expected two tables or more, and its default {default} among the points of each grid")
    out, everywhere = left_out(found), chosen(found, found)
    by_default, by_choice = ([own[point] for own in found.values()] for point in (default, everywhere))
    cells = [f"{out[name]:.4f} ({found[name][default]:.4f})" if name in found else "-" for name in tables]
    return [arm, short(default), mean_and_worst(by_default), short(everywhere), mean_and_worst(by_choice),
            mean_and_worst(out.values()), *cells]  # fmt: skip


def short(point: str) -> str:
    """The point's values: 0.02, 1e-05."""
    return ", ".join(word.partition("=")[2] for word in point.split())


def mean_and_worst(found: Iterable[float]) -> str:
    found = [*found]
    return f"{statistics.fmean(found):.4f}, {max(found):.4f}"


def basis(runs: Sequence[Mapping[str, Any]], scores: Mapping[str, Mapping[str, Points]]) -> str:
    """What was trained, on what, and what could not be."""
    rows = {run["dataset"]: f"{run['dataset']} ({run['num_rows']['valid']:,} valid rows)" for run in runs}
    commits = sorted({re.sub(r"^(\w{10})\w*", r"\1", str(run["commit"])) for run in runs})  # -dirty stays
    failed: dict[str, list[str]] = {}
    for arm, found in scores.items():
        for name, own in found.items():
            for point in (point for point, auc in own.items() if auc == -math.inf):
                failed.setdefault(f"{arm} at {point}", []).append(name)
    parts = [
        f"{len(runs)} trials on {', '.join(rows.values())}",
        f"{max(run['num_rows']['train'] for run in runs):,} train rows, seed {runs[0]['seed']}",
        "regrets: mean and worst of the tables; of a table the one left out (the default's)",
        *(f"{what} could not be trained on {', '.join(names)}" for what, names in failed.items()),
        f"commit {', '.join(commits)}",
        f"table {', '.join(sorted({run['data_digest'] for run in runs}))}",
    ]
    return f"{'; '.join(parts)}."


if __name__ == "__main__":
    main()
