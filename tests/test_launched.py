"""Processes of torchrun on the command line: who speaks, what is refused, and one run of two processes."""

import json
import os
import shlex
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from fieldctr import cli
from fieldctr.errors import UserError
from fieldctr.launched import Launched, launched
from fieldctr.signals import Interrupted

WORDS = [
    *("train", "tracker=none", "dataset=synthetic", "dataset.source.rows=3000", "model=lr", "embedding_dim=4"),
    *("trainer.batch_size=128", "trainer.max_epochs=1", "runtime.threads=1", "runtime.matmul=mkl", "outputs=o"),
]


@pytest.fixture
def as_rank(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int, int], None]:
    """Let this process pass for a rank among some, so many of them on each machine."""

    def tell(rank: int, world: int, local_world: int) -> None:
        told = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank % local_world, "LOCAL_WORLD_SIZE": local_world}
        for name, value in told.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")

    return tell


def test_only_torchrun_makes_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")  # as some schedulers do
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert launched() == Launched(0, 1, 0, 1)


@pytest.mark.parametrize("words", [["evaluate", "run=r"], ["doctor"], ["ssft"], ["search"], ["bench", "train"]])
def test_other_commands_are_refused_under_torchrun(words: list[str], as_rank: Callable[..., None]) -> None:
    as_rank(0, 2, 2)
    with pytest.raises(UserError, match="torchrun started 2"):
        cli.run(*words)


def test_a_multirun_is_refused_under_torchrun(as_rank: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    as_rank(0, 2, 2)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(sys, "argv", ["fieldctr"])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    with pytest.raises(UserError, match="-m is for one process"):
        cli.run("train", "-m", "seed=1,2")


@pytest.mark.parametrize(("rank", "speaks"), [(0, True), (1, False), (2, True), (3, False)])
def test_of_each_machine_one_rank_says_what_is_wrong_with_the_call(
    rank: int, speaks: bool, as_rank: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    as_rank(rank, 4, 2)
    with pytest.raises(SystemExit):
        cli.fail("no model 'fta'", 2, alike=True)
    assert bool(capsys.readouterr().err) == speaks
    with pytest.raises(SystemExit):
        cli.fail("the disk is full", 1)
    assert capsys.readouterr().err == f"fieldctr: {f'rank {rank}: ' if rank else ''}the disk is full\n"


@pytest.mark.parametrize(
    ("place", "call"),
    [((0, 1, 1), "fieldctr"), ((0, 2, 2), "torchrun --nproc-per-node=2 -m fieldctr"),
     ((0, 8, 4), "torchrun --nnodes=2 --nproc-per-node=4 -m fieldctr")],
)  # fmt: skip
def test_a_call_that_goes_on_starts_as_many_processes(
    place: tuple[int, int, int], call: str, as_rank: Callable[..., None]
) -> None:
    as_rank(*place)
    sentence = Interrupted(15).sentence(["train"])
    assert shlex.split(sentence.partition("Again: ")[2]) == [*shlex.split(call), "train"]


@pytest.mark.slow
def test_two_processes_make_one_run(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "fieldctr"]
    done = subprocess.run([*torchrun, *WORDS], cwd=tmp_path, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test AUC") == 1
    assert done.stderr.count("results go to") == 1
    (run,) = (tmp_path / "o/train").iterdir()  # Hydra makes a folder for each process
    result, config = (json.loads((run / name).read_text()) for name in ("result.json", "config.json"))
    assert result["ranks"] == config["runtime"]["ranks"] == 2
    assert len((run / "metrics.jsonl").read_text().splitlines()) == len(
        set((run / "metrics.jsonl").read_text().splitlines())
    )
    assert len([*(tmp_path / "o/data").glob("test_reads-*")]) == 1
    assert len(next((tmp_path / "o/data").glob("test_reads-*")).read_text().splitlines()) == 1
