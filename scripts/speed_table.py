"""Write the tables of speed into scripts/README.md, between `<!-- speed -->` and `<!-- end -->`.

    fieldctr bench growth                                                      # outputs/growth/growth.json
    python scripts/compare_fuxictr.py --peer peer/bin/python --output ratios.json
    python scripts/speed_table.py --ratios ratios.json --growth outputs/growth/growth.json

Steps and evaluations are measured here, beside their own matrix products and by each library; the rest is taken from
the files that the other two calls leave. A table whose file is not given is left out. `--kept` is a file of lines that
were measured before: they are not measured again, and new ones are added.
"""

import argparse
import json
import multiprocessing
import re
from pathlib import Path
from typing import Any, NamedTuple

from fieldctr import compose, processor
from fieldctr.analysis.cost_growth import MEASURES
from fieldctr.analysis.scaling.report import table
from fieldctr.commands.bench_train import BenchTrainConfig, Measured, measured
from fieldctr.config import parse
from fieldctr.training.runtime import SWITCH

PAGE = Path(__file__).with_name("README.md")
PLACE = re.compile(r"(<!-- speed -->\n).*?(<!-- end -->)", re.S)
LAZY = ("optimizer.embedding_update=lazy", "optimizer.embedding_l2=0", "runtime.threads=1", "runtime.device=cpu")
STEP, EVALUATION = 1.15, 1.25  # times its products, that each may take


class Case(NamedTuple):
    """A model at a size."""

    name: str
    words: tuple[str, ...]


CASES = (
    *(Case(name, (f"model={name}", "trainer.batch_size=4096")) for name in ("deepfm", "dcnv2", "finalmlp", "autoint")),
    *(
        Case(
            f"fat, 24 fields, width {dim}",
            ("model=fat", "trainer.batch_size=1024", "num_fields=24", f"embedding_dim={dim}"),
        )
        for dim in (64, 128)
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratios", type=Path, help="what compare_fuxictr.py wrote")
    parser.add_argument("--growth", type=Path, help="what fieldctr bench growth wrote")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--kept", type=Path, default=Path("outputs/speed.json"))
    parser.add_argument("--models", nargs="*", default=[case.name for case in CASES], help="that are measured")
    parser.add_argument("--libraries", nargs="+", default=list(SWITCH), help="of those that compute fp32 exactly here")
    asked = parser.parse_args()
    parts = [f"One thread of {processor.name()}.", overheads(asked)]
    parts += [ratios(json.loads(asked.ratios.read_text(encoding="utf-8")))] if asked.ratios else []
    parts += [growth(json.loads(asked.growth.read_text(encoding="utf-8")))] if asked.growth else []
    page, told = PAGE.read_text(encoding="utf-8"), "\n\n".join(parts)
    PAGE.write_text(PLACE.sub(lambda place: f"{place[1]}{told}\n{place[2]}", page), encoding="utf-8")
    print(told)


def overheads(asked: argparse.Namespace) -> str:
    """Each model by each library, one process each."""
    kept: dict[str, list[str]] = json.loads(asked.kept.read_text(encoding="utf-8")) if asked.kept.exists() else {}
    for case in CASES:
        for library in asked.libraries:
            key, words = f"{case.name} by {library}", [*case.words, *LAZY, f"runtime.matmul={library}"]
            if case.name not in asked.models or key in kept:
                continue
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                kept[key] = pool.apply(overhead, ([*words, f"steps={asked.steps}", "evaluations=3"],))
            asked.kept.parent.mkdir(parents=True, exist_ok=True)
            asked.kept.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
            print(key, *kept[key], flush=True)
    lines = [
        [f"`{case.name}`", library, *kept[key]]
        for case in CASES
        for library in SWITCH
        if (key := f"{case.name} by {library}") in kept
    ]
    head = ["model", "products by", "a step, CPU ms", "its products", "times", "of the peak", "an evaluation, times"]
    told = (
        "Adam on the rows of a batch of 4,096 (FAT 1,024), tables of 1.0 M rows, 39 fields.\n"
        f"Goals: {STEP} for a step, {EVALUATION} for an evaluation; "
        "of the peak 60% for FAT at width 64, 70% at 128."
    )
    return f"{table(head, lines)}\n\n{told}"


def overhead(words: list[str]) -> list[str]:
    found: Measured = measured(parse(BenchTrainConfig, compose("bench train", words), ""))
    step, evaluation = found.step, found.evaluation
    assert evaluation
    cells = [f"{step.busy_s * 1e3:.0f}", f"{step.products_s * 1e3:.0f}", marked(step.overhead, STEP)]
    peak = f"{step.gflop / step.busy_s / found.peak_gflops:.0%}"
    return [*cells, peak, marked(evaluation.overhead, EVALUATION)]


def marked(times: float, most: float) -> str:
    """A ratio, bold where it reaches its goal."""
    return f"**{times:.2f}**" if times <= most else f"{times:.2f}"


def ratios(found: dict[str, Any]) -> str:
    """How many times fewer CPU seconds than FuxiCTR's, a line for each work."""
    settings = list(dict.fromkeys((one["setting"], one["peer"]) for one in found["ratios"] if one["what"] != "table"))
    lines: dict[tuple[str, str], dict[tuple[str, str], str]] = {}
    for one in found["ratios"]:
        spread = f"{one['least']:.2f} to {one['largest']:.2f}" if one["rounds"] > 1 else "one round"
        place = settings[0] if one["what"] == "table" else (one["setting"], one["peer"])
        lines.setdefault((one["what"], one["work"]), {})[place] = f"{one['ratio']:.2f} ({spread})"
    head = ["", "", *(f"{setting} against {peer}" for setting, peer in settings)]
    told = table(head, [[*key, *(cells.get(one, "") for one in settings)] for key, cells in lines.items()])
    rounds = max(one["rounds"] for one in found["ratios"])
    return (
        f"FuxiCTR's CPU seconds over fieldctr's, medians of {rounds} paired rounds (least to largest);\nbatch "
        f"{found['shape']['batch']:,}, fieldctr by {found['library']}, FuxiCTR by mkl as shipped.\n\n{told}"
    )


def growth(found: dict[str, Any]) -> str:
    """The exponents, and what was refused."""
    points = found["points"]
    lines = [
        [
            one["axis"],
            one["work"],
            f"{min(sizes):,} to {max(sizes):,}",
            MEASURES[one["measure"]],
            f"{one['exponent']:.2f}",
            one["most"] or "",
        ]
        for one in found["exponents"]
        if (
            sizes := [
                x["size"] for x in points if (x["axis"], x["work"]) == (one["axis"], one["work"]) and not x["refused"]
            ]
        )
    ]
    refused = [f"{x['axis']} {x['size']:,}: {x['refused']}." for x in points if x["refused"]]
    told = table(["grows", "work", "from, to", "cost", "exponent", "at most"], lines)
    return "\n\n".join(
        [
            f"Cost by size, exponents of the larger half (`{found['config']['model']['_target_'].rsplit('.')[-1]}`).",
            told,
            *refused,
        ]
    )


if __name__ == "__main__":
    main()
