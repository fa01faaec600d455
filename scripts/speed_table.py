"""Write the tables of speed into scripts/README.md, between `<!-- speed -->` and `<!-- end -->`.

    fieldctr bench growth                                                      # outputs/growth/growth.json
    python scripts/compare_fuxictr.py --peer peer/bin/python --output ratios.json
    python scripts/speed_table.py --ratios ratios.json --growth outputs/growth/growth.json

Steps and evaluations are measured here, beside their own matrix products and by each library; the rest is taken from
the files that the other two calls leave. A table whose file is not given is left out.
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
        Case(f"fat, width {dim}", ("model=fat", "trainer.batch_size=1024", "num_fields=24", f"embedding_dim={dim}"))
        for dim in (64, 128)
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratios", type=Path, help="what compare_fuxictr.py wrote")
    parser.add_argument("--growth", type=Path, help="what fieldctr bench growth wrote")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--libraries", nargs="+", default=list(SWITCH), help="of those that compute fp32 exactly here")
    asked = parser.parse_args()
    parts = [f"One thread of {processor.name()}.", overheads(asked.libraries, asked.steps)]
    parts += [ratios(json.loads(asked.ratios.read_text(encoding="utf-8")))] if asked.ratios else []
    parts += [growth(json.loads(asked.growth.read_text(encoding="utf-8")))] if asked.growth else []
    page, told = PAGE.read_text(encoding="utf-8"), "\n\n".join(parts)
    PAGE.write_text(PLACE.sub(lambda place: f"{place[1]}{told}\n{place[2]}", page), encoding="utf-8")
    print(told)


def overheads(libraries: list[str], steps: int) -> str:
    """Each model by each library, one process each."""
    lines = []
    for case in CASES:
        for library in libraries:
            words = [*case.words, *LAZY, f"runtime.matmul={library}", f"steps={steps}", "evaluations=3"]
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                line = pool.apply(overhead, (words,))
            lines.append([f"`{case.name}`", library, *line])
            print(lines[-1], flush=True)
    head = ["model", "products by", "a step, CPU ms", "its products", "times", "of the peak", "an evaluation, times"]
    goals = f"Goals: {STEP} for a step, {EVALUATION} for an evaluation."
    return f"{table(head, lines)}\n\nAdam on the rows of a batch, tables of 1.0 M rows, 39 fields (FAT: 24). {goals}"


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
        spread = f"{one['ratio']:.2f} ({one['least']:.2f} to {one['largest']:.2f})"
        place = settings[0] if one["what"] == "table" else (one["setting"], one["peer"])
        lines.setdefault((one["what"], one["work"]), {})[place] = spread
    head = ["", "", *(f"{setting} against {peer}" for setting, peer in settings)]
    told = table(head, [[*key, *(cells.get(one, "") for one in settings)] for key, cells in lines.items()])
    shape, rounds = found["shape"], found["ratios"][0]["rounds"]
    return (
        f"FuxiCTR's CPU seconds over fieldctr's, medians of {rounds} paired rounds, least and largest; batch "
        f"{shape['batch']:,}, fieldctr by {found['library']}, FuxiCTR by mkl as shipped.\n\n{told}"
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
