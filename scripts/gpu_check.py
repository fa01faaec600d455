"""What the training loop does on a GPU: whether it is right, and how fast it is.

    python scripts/gpu_check.py --wheels wheels --output gpu_check.json       # about 8 minutes of a GPU
    python scripts/gpu_check.py --device cpu --small                          # the same code, in a minute, without one

Runs from a checkout on a machine without network that has torch 2.11 or newer with CUDA. `--wheels` is a folder with
wheels of what is missing there, such as
    pip wheel --no-deps -w wheels hydra-core omegaconf antlr4-python3-runtime==4.9.3 polars polars-runtime-32
of the machine's Python and system. Parts, in this order:
    tests    those marked `cuda`
    equal    20 losses in fp32 on the CPU and on the device, and a checkpoint of either resumed on the other
    ranks    a short fit of two processes of torchrun, by NCCL, against one, where there are two GPUs; with tables in
             shards too, where TorchRec is installed
    speed    ms per step, samples/s, share of the measured peak, peak memory and waits, by model, precision and mode
    ssft     seconds of tuning a small language model on field names
The file is written after each result, so that what an end of the time cuts off is lost alone. Exit code 1 where
something failed.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
MODELS = {"deepfm": 8192, "dcnv2": 8192, "fat_xs": 2048, "fat_s": 2048, "fat_m": 2048}  # batch
MODES = {"eager": "false", "compiled": "true", "graphs": "graphs"}
COMPILED_SECONDS = 45  # about, to compile and measure one model
EQUAL = (  # also with the two updates of tables that touch the batch's rows alone
    ("deepfm", ["optimizer=adam"]),
    ("deepfm", ["optimizer.embedding_update=lazy", "optimizer.embedding_l2=0"]),
    ("deepfm", ["optimizer=rowwise_adagrad"]),
    ("fat_xs", ["optimizer=adam"]),
)
STEPS, WARM_UP, LOSSES = 30, 8, 20
HANGS_S = 300  # two ranks that wait for each other
TOLERANCE = 1e-4


class Check:
    """What was asked for, and the results so far."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked, self.begin = asked, time.perf_counter()
        self.found: dict[str, Any] = {
            "machine": machine(asked.device),
            "tests": {},
            "equal": [],
            "ranks": [],
            "speed": [],
            "ssft": {},
        }
        self.failed = False

    @property
    def left(self) -> float:
        """Seconds."""
        return 60 * self.asked.minutes - (time.perf_counter() - self.begin)

    def take(self, result: dict[str, Any], action: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Fill a result, with the error where there is one: a broken arm must not cost the others' GPU time."""
        from fieldctr.errors import UserError

        begin = time.perf_counter()
        try:
            result |= action()
        except (
            UserError,
            RuntimeError,
            ValueError,
            AssertionError,
            LookupError,
            AttributeError,
            OSError,
            ImportError,
        ) as error:
            result["error"] = f"{type(error).__name__}: {str(error)[:500]}"
        result["took_s"] = round(time.perf_counter() - begin, 1)
        self.failed |= "error" in result or result.get("ok") is False
        self.asked.output.parent.mkdir(parents=True, exist_ok=True)
        self.asked.output.write_text(json.dumps(self.found, indent=1) + "\n", encoding="utf-8")
        print(result, flush=True)
        return result


class Arm(NamedTuple):
    """A way to train that is measured."""

    model: str
    precision: str
    mode: str


def main() -> None:
    asked = arguments()
    if asked.wheels:
        install(asked.wheels)
    sys.path.insert(0, str(ROOT))
    warnings.filterwarnings("ignore")
    check = Check(asked)
    if "tests" in asked.parts:
        check.take(check.found["tests"], lambda: cuda_tests(check.left))
    if "equal" in asked.parts:
        for model, words in EQUAL:
            result = {"model": model, "words": words}
            check.found["equal"].append(result)
            check.take(result, lambda model=model, words=words: equal(asked, model, words))
    if "ranks" in asked.parts:
        ranks(check)
    if "speed" in asked.parts:
        speed(check, lambda arm: arm.mode == "eager")
    if "ssft" in asked.parts:
        check.take(check.found["ssft"], lambda: ssft(asked))
    if "speed" in asked.parts:
        speed(check, lambda arm: arm.mode != "eager")
    print(table(check.found))
    sys.exit(int(check.failed))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--small", action="store_true", help="a small table and few steps: shows that it runs")
    parser.add_argument("--parts", nargs="+", default=["tests", "equal", "ranks", "speed", "ssft"])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--minutes", type=float, default=7.5, help="arms that would end later are left out")
    parser.add_argument("--wheels", type=Path)
    parser.add_argument("--output", type=Path, default=Path("gpu_check.json"))
    return parser.parse_args()


def install(wheels: Path) -> None:
    """Unpack the wheels into a folder that only this process and its children see."""
    folder = tempfile.mkdtemp()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile", "--target"]
    subprocess.run([*pip, folder, *map(str, sorted(wheels.glob("*.whl")))], check=True)
    sys.path.insert(0, folder)


def environment() -> dict[str, str]:
    """Of a child that sees what this process sees."""
    return os.environ | {"PYTHONPATH": ":".join(path for path in sys.path if path)}


def machine(device: str) -> dict[str, str]:
    import torch

    name = torch.cuda.get_device_name(0) if device == "cuda" else platform.processor() or platform.machine()
    return {"device": name, "torch": torch.__version__, "python": platform.python_version()}


def cuda_tests(seconds: float) -> dict[str, Any]:
    """The last line of pytest, without this project's options: its plug-ins may be missing."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-o", "addopts=--import-mode=importlib"]
    command += ["-W", "ignore::pytest.PytestConfigWarning", "-p", "no:cacheprovider", "tests/training"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=max(seconds, 1), check=False
    )
    lines = (done.stdout + done.stderr).strip().splitlines()
    return {"ok": done.returncode == 0, "said": lines[-1:] if done.returncode == 0 else lines[-30:]}


def fitting(asked: argparse.Namespace, arm: Arm, *, device: str, words: list[str], folder: Path | None = None) -> Any:
    """A fit of a model on a made-up table, ready to step."""
    from fieldctr.commands.launch import compose
    from fieldctr.commands.machine import start_runtime
    from fieldctr.config import OptimizerConfig, RuntimeConfig, TrainerConfig, parse
    from fieldctr.data.generated import generated_split
    from fieldctr.models.ctr_model import build_model
    from fieldctr.training.trainer import Fitting, Trainer

    batch, fields, vocabulary = (32, 6, 500) if asked.small else (MODELS[arm.model], 39, 1_000_000)
    words = [f"model={arm.model}", f"trainer.precision={arm.precision}", f"trainer.batch_size={batch}", *words]
    node = compose("bench train", [*words, f"trainer.compile={MODES[arm.mode]}"])
    trainer = parse(TrainerConfig, node["trainer"], "trainer")
    runtime = start_runtime(
        replace(parse(RuntimeConfig, node["runtime"], "runtime"), device=device, matmul="mkl"),
        trainer,
        outputs=Path(tempfile.gettempdir()),
    )
    schema, split = generated_split(fields, vocabulary, 20 * batch, seed=1)
    model = build_model(schema, dim=node["embedding_dim"], model=node["model"], enhancer=None, seed=1)
    optimizer = parse(OptimizerConfig, node["optimizer"], "optimizer")
    return Fitting(
        Trainer(trainer, optimizer, runtime, seed=1), model.to(runtime.device), split, split.take(slice(8)), folder
    )


def batches(fit: Any, start: int = 0) -> Iterator[Any]:
    """Without end, from one of the first epoch."""
    return chain(fit.batches.shuffled(1, 0, start), chain.from_iterable(fit.batches.shuffled(1, 0) for _ in repeat(0)))


def losses(fit: Any, steps: int) -> list[float]:
    """Train on, and give each step's loss."""
    found = []
    fit.model.train()
    for _, batch in zip(range(steps), batches(fit, fit.state.step), strict=False):
        before = float(fit.loss_sum)
        fit.train_step(*batch)
        found.append(float(fit.loss_sum) - before)
    return found


def equal(asked: argparse.Namespace, model: str, words: list[str]) -> dict[str, Any]:
    """The largest difference of a loss between CPU and device, also after a checkpoint went from one to the other."""
    words = [*words, "model.dropout=0"]
    arm, half = Arm(model, "fp32", "eager"), LOSSES // 2
    found, expected = {}, losses(fitting(asked, arm, device="cpu", words=words), LOSSES)
    fit = fitting(asked, arm, device=asked.device, words=words)
    own = losses(fit, LOSSES)
    found["largest_difference"] = max(abs(a - b) for a, b in zip(own, expected, strict=True))
    for first, second in (("cpu", asked.device), (asked.device, "cpu")):
        with tempfile.TemporaryDirectory() as folder:
            before = fitting(asked, arm, device=first, words=words, folder=Path(folder))
            losses(before, half)
            before.clock = time.perf_counter()
            before.save()
            after = fitting(asked, arm, device=second, words=words, folder=Path(folder))
            assert after.load(), "no checkpoint was found"
            went_on = losses(after, LOSSES - half)
        difference = max(abs(a - b) for a, b in zip(went_on, expected[half:], strict=True))
        found[f"resumed_on_{second}" if first != second else "resumed"] = difference
    waited, right = waits(fit, batches(fit)), max(found.values()) <= TOLERANCE
    found |= {"first_loss": expected[0], "last_loss": expected[-1], "waits": waited}
    return found | {"ok": right and not waited}


def ranks(check: Check) -> None:
    """Two ranks against one process, or why not."""
    import torch

    from fieldctr.training.torchrec_pair import pair_fits

    asked, count = check.asked, torch.cuda.device_count()
    for engine in ("torch", "torchrec"):
        mode = f"2 ranks by {'nccl' if asked.device == 'cuda' else 'gloo'}, {engine}"
        result = {"model": "deepfm", "precision": "fp32", "mode": mode}
        check.found["ranks"].append(result)
        if asked.device == "cuda" and count < 2:
            check.take(result, lambda: {"left_out": f"NCCL takes a GPU for each rank, and torch sees {count}"})
        elif engine == "torchrec" and not pair_fits():
            check.take(result, lambda: {"left_out": "TorchRec is not installed"})
        else:
            check.take(result, lambda engine=engine: two_ranks(asked, engine))


def two_ranks(asked: argparse.Namespace, engine: str) -> dict[str, Any]:
    """The largest difference of a training loss and of an AUC between one process and two; samples/s of the two."""
    rows, batch = (3000, 128) if asked.small else (800_000, 8192)
    words = ["tracker=none", "dataset=synthetic", f"dataset.source.rows={rows}", "model=deepfm", "tuned=none"]
    words += ["trainer.max_epochs=1", "trainer.evals_per_epoch=2", f"trainer.batch_size={batch}"]
    words += ["optimizer=rowwise_adagrad", "trainer.clip_norm=null", "trainer.ema_decay=null"]  # what shards take
    words += [f"runtime.device={asked.device}", "runtime.matmul=mkl", "runtime.threads=1"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "fieldctr", "train"]
    calls = {"one": ["-m", "fieldctr", "train", *words], "two": [*torchrun, *words, f"embedding.engine={engine}"]}
    evaluations = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, call in calls.items():
            run = Path(folder) / name
            done = subprocess.run(
                ["timeout", str(HANGS_S), sys.executable, *call, f"outputs={folder}", f"hydra.run.dir={run}"],
                cwd=ROOT, env=environment(), capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                return {"ok": False, "said": done.stderr.strip().splitlines()[-30:]}
            lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            evaluations[name] = [json.loads(line) for line in lines]
        result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = {"batch": batch, "samples_per_s": result["samples_per_s"], "ranks": result["ranks"]}
    for key, name in (("train_loss", "largest_difference"), ("valid/auc", "largest_difference_of_auc")):
        pairs = zip(evaluations["one"], evaluations["two"], strict=True)
        found[name] = max(abs(one[key] - two[key]) for one, two in pairs)
    return found | {"ok": found["largest_difference"] <= TOLERANCE and result["ranks"] == 2}


def speed(check: Check, chosen: Callable[[Arm], bool]) -> None:
    """Measure the arms in the order of what one wants to know first; those that do not fit into the time are named."""
    asked = check.asked
    precisions = ["bf16", "fp32", "tf32"] if asked.device == "cuda" else ["fp32"]
    modes = list(MODES) if asked.device == "cuda" else ["eager"]
    for precision in precisions:
        for model in asked.models:
            for mode in modes:
                arm = Arm(model, precision, mode)
                if not chosen(arm):
                    continue
                result = dict(arm._asdict())
                check.found["speed"].append(result)
                if check.left < (COMPILED_SECONDS if mode != "eager" else 5):
                    result["left_out"] = "no time left"
                    continue
                check.take(result, lambda arm=arm: measured(asked, arm, check.found["speed"]))


def measured(asked: argparse.Namespace, arm: Arm, before: list[dict[str, Any]]) -> dict[str, Any]:
    """One arm. What its products are, an eager step counts, since a compiled one hides them."""
    from fieldctr.nn.flops import FlopCounter

    fit = fitting(asked, arm, device=asked.device, words=[])
    runtime, steps = fit.runtime, 2 if asked.small else STEPS
    peak = runtime.matmul_gflops(size=256 if asked.small else 8192, repeats=5)
    fit.model.train()
    given = batches(fit)
    if arm.mode == "eager":
        with FlopCounter() as counter:
            fit.train_step(*next(given))
        gflop = counter.flops / 1e9
    else:
        gflop = next((one["gflop"] for one in before if one["model"] == arm.model and "gflop" in one), 0.0)
    for _ in range(WARM_UP if not asked.small else 1):
        fit.train_step(*next(given))
    runtime.synchronize()
    begin = time.perf_counter()
    for _ in range(steps):
        fit.train_step(*next(given))
    runtime.synchronize()
    seconds = (time.perf_counter() - begin) / steps
    return {
        "batch": fit.pace.batch_size,
        "ms": round(seconds * 1e3, 3),
        "samples_per_s": round(fit.pace.batch_size / seconds),
        "gflop": gflop,
        "peak_gflops": round(peak),
        "share_of_peak": round(gflop / seconds / peak, 4),
        "peak_mb": round(runtime.peak_memory_mb()),
        "waits": waits(fit, given),
    }


def waits(fit: Any, given: Iterator[Any]) -> int | None:
    """How often three steps wait for the device, by torch's own warnings; None on a CPU."""
    import torch

    if fit.runtime.device.type != "cuda":
        return None
    some = [next(given) for _ in range(3)]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            for batch in some:
                fit.train_step(*batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(one.message) for one in said)


def ssft(asked: argparse.Namespace) -> dict[str, Any]:
    """Seconds of `fieldctr ssft` with a decoder that is made on the spot: tuning it, and reading its vectors."""
    rows = 2000 if asked.small else 200_000
    with tempfile.TemporaryDirectory() as folder:
        words = [f"runtime.device={asked.device}", "runtime.matmul=mkl", f"outputs={folder}"]
        words += [f"dataset.source.rows={rows}"]
        words += ["encoder.values_per_field=2"] if asked.small else []
        done = subprocess.run(
            [sys.executable, "-m", "fieldctr", "ssft", "encoder=tiny_llama", *words],
            cwd=ROOT, env=environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip
    said = done.stdout.strip().splitlines() if done.returncode == 0 else done.stderr.strip().splitlines()[-5:]
    return {"ok": done.returncode == 0, "said": said}


def table(found: dict[str, Any]) -> str:
    """The speeds as Markdown, and those of two ranks."""
    columns = ("model", "precision", "mode", "batch", "ms", "samples_per_s", "share_of_peak", "peak_mb", "waits")
    lines = [f"{found['machine']['device']}, torch {found['machine']['torch']}", "", f"| {' | '.join(columns)} | |"]
    lines.append(f"|{'---|' * (len(columns) + 1)}")
    for result in found["speed"] + found["ranks"]:
        cells = [str(result.get(column, "")) for column in columns]
        lines.append(f"| {' | '.join(cells)} | {result.get('left_out', result.get('error', ''))[:100]} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
