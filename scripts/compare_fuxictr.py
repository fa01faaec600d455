"""Time training, evaluation and preparation of fieldctr and of FuxiCTR side by side, on equal made-up tables.

    python -m venv peer && peer/bin/pip install fuxictr psutil 'polars<2'
    python scripts/compare_fuxictr.py --peer peer/bin/python

One torch thread and one of polars; CPU seconds, because wall time on a shared machine means little. In each round all
sides take turns, and a ratio is the median of the rounds' ratios, beside the least and the largest of them. FuxiCTR's
data loader is left out, ours is in the step. Each ratio is given as shipped, and with FuxiCTR on the library of matrix
products that fieldctr takes here, where that is another. FuxiCTR prepares by Ray, whose helpers count, and its table is
split in advance. bf16 is left out where the processor only emulates it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

SIDE = Path(__file__).with_name("fuxictr_side.py")
SPLITS = {"train": 0.8, "valid": 0.1, "test": 0.1}


@dataclass(frozen=True)
class Shape:
    """Sizes that both sides have."""

    fields: int = 39
    table_rows: int = 1_000_000
    dim: int = 16
    batch: int = 4096
    hidden: list[int] = field(default_factory=lambda: [400, 400, 400])
    layers: int = 3
    heads: int = 2
    head_dim: int = 32
    gate: list[int] = field(default_factory=lambda: [400])
    warm_up: int = 3
    steps: int = 12
    eval_rows: int = 200_000

    def words(self, model: str) -> list[str]:
        """Keys of one of our models."""
        found = {
            "deepfm": {"hidden_dims": self.hidden},
            "dcnv2": {"hidden_dims": self.hidden, "num_layers": self.layers},
            "finalmlp": {
                "first_dims": self.hidden,
                "second_dims": self.hidden,
                "gate_dims": self.gate,
                "num_heads": self.heads,
            },
            "autoint": {"num_layers": self.layers, "num_heads": self.heads, "head_dim": self.head_dim},
        }[model]
        return [f"model.{key}={json.dumps(value).replace(' ', '')}" for key, value in found.items()]


MODELS = ("deepfm", "dcnv2", "finalmlp", "autoint")
Rounds = dict[tuple[str, str], list[dict[str, float]]]  # by side and setting


def main() -> None:
    asked = arguments()
    if asked.worker:
        print(json.dumps(ours(*asked.worker[:2], Shape(**json.loads(asked.worker[2])))))
        return
    if not asked.peer:
        raise SystemExit("--peer is needed: the Python of an environment that has fuxictr")
    from fieldctr import processor
    from fieldctr.training.runtime import remembered_matmul

    library = remembered_matmul(Path("outputs/machine"), 1)
    shape = Shape(table_rows=asked.table_rows, batch=asked.batch, steps=asked.steps, eval_rows=asked.eval_rows)
    print(f"{processor.name()}; one thread; products by {library} here, by mkl in FuxiCTR as shipped")
    if not processor.native_bf16():
        print("bf16 is left out: this processor emulates it")
    found: list[dict[str, Any]] = []
    head = {"processor": processor.name(), "library": library, "shape": asdict(shape)}
    for model in asked.models:
        peers = ["mkl", *({library} - {"mkl"})]
        precisions = ["fp32", *(["bf16"] if processor.native_bf16() else [])]
        found += ratios(model, fits(model, shape, asked, peers, precisions))
        keep(asked.output, {**head, "ratios": found})
    if asked.rows:
        found += ratios("table", prepared(asked.rows, shape.fields, asked))
        keep(asked.output, {**head, "prepared_rows": asked.rows, "ratios": found})


def keep(path: Path | None, found: dict[str, Any]) -> None:
    """Write what was found so far."""
    if path:
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="the Python of an environment that has fuxictr")
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--rows", type=int, default=500_000, help="of the table that is prepared; 0 for none")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=Shape.steps)
    parser.add_argument("--batch", type=int, default=Shape.batch)
    parser.add_argument("--eval-rows", type=int, default=Shape.eval_rows)
    parser.add_argument("--table-rows", type=int, default=Shape.table_rows)
    parser.add_argument("--output", type=Path, help="a file for the ratios, as JSON")
    parser.add_argument("--worker", nargs=3, metavar=("MODEL", "PRECISION", "SHAPE"), help=argparse.SUPPRESS)
    return parser.parse_args()


def fits(model: str, shape: Shape, asked: argparse.Namespace, peers: list[str], precisions: list[str]) -> Rounds:
    """Steps and evaluations of all sides, in turn."""
    given, calls = json.dumps(asdict(shape)), {}
    for library in peers:
        calls["fuxictr", library] = [asked.peer, SIDE, "fit", model, library, given]
    for precision in precisions:
        calls["fieldctr", precision] = [sys.executable, __file__, "--worker", model, precision, given]
    found: Rounds = {key: [] for key in calls}
    for _ in range(asked.rounds):
        for key, call in calls.items():
            found[key].append(answer(call))
    return found


def prepared(rows: int, num_fields: int, asked: argparse.Namespace) -> Rounds:
    """Preparations of one table by both sides, in turn."""
    from fieldctr.commands.bench_data import in_own_process
    from fieldctr.data.generated import write_generated_csv

    found: Rounds = {("fuxictr", "ray"): [], ("fieldctr", "polars"): []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed, (split, share) in enumerate(SPLITS.items()):
            write_generated_csv(
                folder / f"{split}.csv", num_fields=num_fields, vocab_size=30_000, rows=int(rows * share), seed=seed
            )
        parts = [(folder / f"{split}.csv").read_bytes() for split in SPLITS]
        (folder / "table.csv").write_bytes(parts[0] + b"".join(part.split(b"\n", 1)[1] for part in parts[1:]))
        for _ in range(asked.rounds):
            found["fuxictr", "ray"].append(answer([asked.peer, SIDE, "prepare", folder, num_fields]))
            found["fieldctr", "polars"].append({"prepare": in_own_process(folder, num_fields, 2)[1]})
    return found


def answer(call: list[Any]) -> dict[str, float]:
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    done = subprocess.run([*map(str, call)], capture_output=True, text=True, env=one_thread, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, call[1:5]))} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def ratios(what: str, found: Rounds) -> list[dict[str, Any]]:
    """Print medians and, for each pair of sides, the median of the rounds' ratios."""
    for (side, setting), rounds in found.items():
        told = ", ".join(f"{name} {statistics.median(one[name] for one in rounds):.3f}" for name in rounds[0])
        print(f"{what:8} {side:8} {setting:6} CPU s: {told}", flush=True)
    made = []
    for (own, setting), rounds in found.items():
        for (peer, base), theirs in found.items():
            for name in rounds[0] if own == "fieldctr" and peer == "fuxictr" else ():
                pairs = sorted(a[name] / b[name] for a, b in zip(theirs, rounds, strict=True))
                made.append(
                    {"what": what, "work": name, "setting": setting, "peer": base, "ratio": statistics.median(pairs)}
                    | {"least": pairs[0], "largest": pairs[-1], "rounds": len(pairs)}
                )
                print(
                    f"{what:8} {name:10} {setting} against FuxiCTR by {base}: {statistics.median(pairs):.2f}x "
                    f"({pairs[0]:.2f} to {pairs[-1]:.2f})",
                    flush=True,
                )
    return made


def ours(model: str, precision: str, shape: Shape) -> dict[str, float]:
    """Median CPU seconds of a training step, and those of an evaluation."""
    from fieldctr.commands.launch import compose
    from fieldctr.commands.machine import start_runtime
    from fieldctr.config import OptimizerConfig, RuntimeConfig, TrainerConfig, parse
    from fieldctr.data.generated import generated_split
    from fieldctr.models.ctr_model import build_model
    from fieldctr.training.evaluate import evaluate
    from fieldctr.training.trainer import Fitting, Trainer

    words = [f"model={model}", *shape.words(model), "optimizer.embedding_l2=0", "optimizer.embedding_update=lazy"]
    words += [f"trainer.batch_size={shape.batch}", f"trainer.precision={precision}", "trainer.ema_decay=null"]
    node = compose("bench train", [*words, "runtime.threads=1"])
    settings = parse(TrainerConfig, node["trainer"], "trainer")
    optimizer = parse(OptimizerConfig, node["optimizer"], "optimizer")
    runtime = start_runtime(parse(RuntimeConfig, node["runtime"], "runtime"), settings, outputs=Path("outputs"))
    schema, split = generated_split(shape.fields, shape.table_rows, shape.eval_rows, seed=1)
    network = build_model(schema, dim=shape.dim, model=node["model"], enhancer=None, seed=1)
    fitting = Fitting(Trainer(settings, optimizer, runtime, seed=1), network, split, split, folder=None)
    network.train()
    batches = chain.from_iterable(fitting.batches.shuffled(1, epoch, 0) for epoch in repeat(0))
    seconds = []
    for batch in islice(batches, shape.warm_up + shape.steps):
        begin = time.process_time()
        fitting.train_step(*batch)
        seconds.append(time.process_time() - begin)
    begin = time.process_time()
    evaluate(network, split, batch_size=settings.eval_batch_size, runtime=runtime)
    return {"step": statistics.median(seconds[shape.warm_up :]), "evaluation": time.process_time() - begin}


if __name__ == "__main__":
    main()
