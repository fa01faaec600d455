"""What a call imports before it answers: torch, polars and the like cost seconds that only training needs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fieldctr.commands.words import HYDRA

HEAVY = {"torch", "numpy", "polars", "scipy", "matplotlib", "wandb", "transformers", "triton"}
OF_THE_COMPILER = {"triton", "sympy", "torch._dynamo", "torch._inductor", "torch.utils.flop_counter"}
UNUSED_IN_TRAINING = OF_THE_COMPILER | {"wandb", "transformers", "peft", "optuna", "sklearn"}
PLAIN = ["--help", "list", "completion query", "ssft list"]
COMPOSED = ["train --cfg job", "train seed=abc", "train trainer.patience=x", "train encoder=random encoder.dtype=fp8"]
REFUSED = [  # for each command that computes, and for open nodes
    *("train model.dropout=9", "train model=deepfm model.hidden_dims=x", "train dataset.source.rows=0"),
    *("evaluate run=x typo=1", "evaluate run=x split=all", "predict run=x input=x output=y json=3"),
    *("compare byy=model", "compare runs=x level=high", "report runs=3", "sync runs=x mode=3", "verify runs=3"),
    *("baseline seed=abc", "lint time=3", "prepare engine=spark", "prepare dataset.min_count=0", "parity run=3"),
    *("search trials=abc", "study trials=abc", "study status name=3", "scaling runs=x resamples=x", "clean dry_run=3"),
    *("scaling bound embedding_dim=x", "bench train steps=x", "bench data rows=x", "ssft encoder.max_tokens=x"),
    *("export run=x output=y format=tar", "texts dataset=coupon samples=x"),
]
TINY = "train tracker=none model=lr dataset.source.rows=3000 trainer.max_epochs=1 runtime.matmul=mkl"
CODE = """
import contextlib, io, json, os, sys
from fieldctr.cli import run
from fieldctr.errors import UserError
for call in json.loads(sys.argv[1]):
    sys.argv = ["fieldctr", *call.split()]
    os.environ.pop("HYDRA_FULL_ERROR", None)
    with contextlib.suppress(UserError), contextlib.redirect_stdout(io.StringIO()):
        run(*call.split())
print(json.dumps([*sys.modules]))
"""


def imported(calls: list[str], folder: Path) -> set[str]:
    """The modules of a process that makes these calls."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(calls)],
        capture_output=True, text=True, cwd=folder, env=os.environ | {"COMP_LINE": "fieldctr train m"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_help_lists_and_completion_import_nothing_heavy(tmp_path: Path) -> None:
    assert not imported(PLAIN, tmp_path) & (HEAVY | {"hydra", "omegaconf"})


def test_a_configuration_and_a_value_out_of_range_import_nothing_heavy(tmp_path: Path) -> None:
    assert not imported(COMPOSED, tmp_path) & HEAVY


@pytest.mark.slow
def test_a_mistake_in_any_command_imports_nothing_heavy(tmp_path: Path) -> None:
    commands = {call.split()[0] for call in REFUSED}
    assert commands == set(HYDRA)
    assert not imported(REFUSED, tmp_path) & HEAVY
    assert not list(tmp_path.glob("outputs/*/*"))  # nor leaves a folder that looks like a run


@pytest.mark.slow
def test_training_imports_neither_the_compiler_nor_what_it_does_not_use(tmp_path: Path) -> None:
    found = imported([TINY], tmp_path)
    assert "torch" in found
    assert not found & UNUSED_IN_TRAINING
