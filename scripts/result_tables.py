"""Write the tables of conf/study/README.md: each place `<!-- study NAME -->` gets what its study found.

    python scripts/result_tables.py                   # all studies that the page has a place for
    python scripts/result_tables.py coupon_models     # one

Runs that have finished are not run again. A study that compares within a condition, such as LLaCTR's within a backbone,
or on more than two data sets, gets one line for each; `<!-- study NAME, ARM minus OTHER -->` adds the column of that
pair.
"""

import argparse
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fieldctr import compare, compose, study
from fieldctr.analysis.comparison.sentences import basis
from fieldctr.analysis.comparison.tables import arm_table, grave
from fieldctr.analysis.scaling.report import table as markdown
from fieldctr.runs import load_result

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "conf/study/README.md"
PLACE = r"<!-- study {}(?:, (\S+) minus (\S+))? -->\n(.*?)<!-- end -->"
KEPT = ("has no run of seed", "machines or runtimes", "has been read by", "left out")  # of the notes

Found = Mapping[str, Any]  # a comparison, as comparison.json has it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="studies; all of the page without a name")
    parser.add_argument("--outputs", default="outputs", help="folder that has studies/")
    parser.add_argument("--config-dir", type=Path, help="folder of YAML that has the studies, and their tables")
    asked = parser.parse_args()
    own = asked.config_dir and asked.config_dir.resolve()
    os.chdir(ROOT)
    for name in asked.names or re.findall(r"<!-- study (\w+)", PAGE.read_text(encoding="utf-8")):
        folder = study(compose("study", [f"study={name}", f"outputs={asked.outputs}"], config_dir=own))
        PAGE.write_text(inserted(PAGE.read_text(encoding="utf-8"), name, folder), encoding="utf-8")
        print(f"{PAGE}: {name}")


def inserted(page: str, name: str, folder: Path) -> str:
    """The page with the study's table in its place."""
    place = re.search(PLACE.format(name), page, re.S)
    if not place:
        raise SystemExit(f"{PAGE} has no place <!-- study {name} --> ... <!-- end -->")
    found = json.loads((folder / "report/comparison.json").read_text(encoding="utf-8"))["comparisons"]
    several = found[0]["within"] or len(found) > 2  # conditions, or data sets: a line each
    tables = [by_condition(found, folder, place[1], place[2])] if several else [by_arm(one) for one in found]
    return page[: place.start(3)] + "\n\n".join([*tables, *notes(found, folder)]) + "\n" + page[place.end(3) :]


def by_arm(found: Found) -> str:
    """One line an arm, the best first; seeds and settings where arms differ in them."""
    head, lines = arm_table(found, strong="**", measured=False)
    end = len(head) if len({(*line[-2:],) for line in lines}) > 1 else -2
    return markdown(head[:end], [line[:end] for line in lines])


def by_condition(found: list[Found], folder: Path, arm: str | None, other: str | None) -> str:
    """One line a condition: the reference, and what each arm adds to it in the first metric. Many arms have lines."""
    base, lead = found[0]["against"], found[0]["metrics"][0].upper()
    arms = [*dict.fromkeys(one["arm"] for part in found for one in part["differences"])]
    several = len({part["dataset"] for part in found}) > 1
    head = [
        *(["dataset"] if several else []),
        *found[0]["within"],
        f"{base}: test {lead} ± sd",
        *(f"{name} - {base}" for name in arms),
    ]
    lines = []
    for part in found:
        cells = cells_of(part)
        lines.append(
            [
                *([part["dataset"]] if several else []),
                *part["within"].values(),
                cells[base][1],
                *(cells[name][2] if name in cells else "-" for name in arms),
            ]
        )
    if arm:
        chosen = {"by": found[0]["by"], "within": [*found[0]["within"]], "metrics": [lead.lower()], "against": other}
        words = [f"runs={folder}/runs/*/*", f"outputs={folder.parents[1]}", f"output={folder}/report/against_{other}"]
        pairs = compare(compose("compare", words) | chosen)["comparisons"]
        head.append(f"{arm} - {other}")
        lines = [[*line, cells_of(part)[arm][2]] for line, part in zip(lines, pairs, strict=True)]
    first = len(head) - len(arms) - (arm is not None) - 1  # of the columns with numbers
    if len(arms) > 2 * len(lines):  # more columns than a page has room for: conditions become columns
        turned = zip(*(line[first:] for line in lines), strict=True)
        lines = [[name, *cells] for name, cells in zip(head[first:], turned, strict=True)]
        head = ["", *(", ".join(map(str, part["within"].values())) + f" on {part['dataset']}" for part in found)]
    return markdown(head, lines)


def cells_of(found: Found) -> dict[Any, Any]:
    """The lines of the table of arms by arm: name, metric, difference to the reference."""
    return {line[0]: line for line in arm_table(found, strong="**", measured=False)[1]}


def notes(found: list[Found], folder: Path) -> list[str]:
    """What makes the comparison unfair, and what its numbers rest on."""
    asked = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    runs = [load_result(Path(run)) for one in found for arm in one["arms"] for run in arm["folders"]]
    tables = sorted({run["data_digest"] for run in runs})
    on = ", ".join(dict.fromkeys(f"{one['dataset']} ({basis(one['differences'][0])})" for one in found))
    commits = sorted({re.sub(r"^(\w{10})\w*", r"\1", str(run["commit"])) for run in runs})  # -dirty stays
    settings = f"searched, {asked['trials']} trials each" if asked["settings"] == "searched" else asked["settings"]
    parts = [
        f"{len(runs)} runs on {on}",
        f"settings {settings}",
        "differences with 95 % intervals over rows and seeds, bold where p < 0.05 after Holm",
        f"commit {', '.join(commits)}",
        f"table {', '.join(tables)}",
        *of_each(found, lambda one: [note for note in one["notes"] if any(part in note for part in KEPT)]),
    ]
    return [*dict.fromkeys(f"**{note}**" for one in found for note in grave(one)), f"{'; '.join(parts)}."]


def of_each(found: list[Found], told: Callable[[Found], list[str]]) -> list[str]:
    """What is told of the comparisons, once; with the data set where it is not told of all."""
    said: dict[str, list[str]] = {}
    for one in found:
        for text in told(one):
            said.setdefault(text, []).append(one["dataset"])
    datasets = {one["dataset"] for one in found}
    return [
        text if datasets == {*names} else f"{', '.join(dict.fromkeys(names))}: {text}" for text, names in said.items()
    ]


if __name__ == "__main__":
    main()
