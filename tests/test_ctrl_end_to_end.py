"""enhancer=ctrl from a table to runs that share one first stage, and that need nothing of it once they have begun."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fieldctr import FinishedRun, compose, train
from fieldctr.commands import first_stage
from fieldctr.commands.clean import unused
from fieldctr.commands.export import main as export
from fieldctr.commands.trained import evaluated_split, load_trained
from fieldctr.config import RuntimeConfig
from fieldctr.errors import UserError
from fieldctr.llm import text_tower, text_vectors
from fieldctr.llm.account import read_account
from fieldctr.runs import MODEL

pytestmark = pytest.mark.slow

SMALL = [
    *("dataset.source.rows=1200", "embedding_dim=4", "tracker=none", "runtime.threads=1", "runtime.matmul=mkl"),
    *("trainer.batch_size=256", "trainer.max_epochs=1", "trainer.evals_per_epoch=1", "model=deepfm"),
]
CTRL = ["enhancer=ctrl", "encoder=random", "enhancer.max_rows=300", "enhancer.epochs=1", "enhancer.batch_size=64"]
CPU = RuntimeConfig(device="cpu", threads=1, matmul="mkl")
Train = Callable[..., FinishedRun]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ctrl")


def words(home: Path, *own: str) -> list[str]:
    """Of a call: a key of one's own comes in the place of that of CTRL."""
    keys = {word.partition("=")[0] for word in own}
    plain = "enhancer=none" in own
    base = [word for word in (*SMALL, *CTRL) if word.partition("=")[0] not in keys]
    base = [word for word in base if not (plain and word.startswith("enhancer."))]
    return [*base, *own, f"outputs={home}/o"]


@pytest.fixture(scope="module")
def fitted(home: Path) -> Train:
    """fitted(folder, word ...): a run with CTRL and these words of a call."""
    return lambda folder, *own: train(compose("train", words(home, *own)), folder=home / folder)


@pytest.fixture(scope="module")
def first(fitted: Train) -> FinishedRun:
    """A trial of a search, from which test is sealed."""
    return fitted("trial", "evaluate_test=false")


def weights(run: FinishedRun) -> dict[str, Tensor]:
    return load_file(run.folder / MODEL)


def stages(home: Path) -> set[str]:
    return {path.name for path in (home / "o/ctrl").iterdir()}


def test_the_first_stage_is_made_once_for_all_seeds_and_all_second_stages(
    first: FinishedRun, fitted: Train, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in (
        (text_vectors, "load_encoder"), (text_vectors, "entity_texts"), (first_stage, "align"),
        (first_stage, "embed_entities"), (first_stage, "entity_texts"), (text_tower, "load_encoder"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, None)
    told = first.result["pretraining"]
    assert first.result["offline"]["seconds"] >= told["cost"]["align_s"]
    for own in (["seed=2"], ["optimizer.lr=0.1"], ["trainer.max_epochs=2"], ["evaluate_test=true"]):
        run = fitted(own[0], *own)
        assert run.result["pretraining"] == told
    assert stages(home) == {told["digest"]}
    assert told["source"] == "text"
    (texts,) = (read_account(path) for path in (home / "o/text_vectors").glob("[0-9a-f]*"))
    assert 0 < texts["entities"] <= 300  # of train's rows alone
    assert (told["rows"], told["steps"]) == (300, 5)
    assert {"calls", "tokens", "read_s", "align_s", "clock", "peak_mb"} == told["cost"].keys()


@pytest.mark.parametrize(
    "own",
    [
        ["enhancer.seed=2"],
        ["enhancer.max_rows=200"],
        ["embedding_dim=6"],
        ["encoder.seed=2"],
        ["enhancer=ctrl_no_text"],
    ],
    ids=lambda own: own[0],
)
def test_what_decides_the_first_stage_makes_another(
    own: list[str], first: FinishedRun, fitted: Train, home: Path
) -> None:
    assert fitted(f"other {own[0]}", *own).result["pretraining"]["digest"] != first.result["pretraining"]["digest"]


def test_a_sample_of_train_that_the_seed_draws_has_a_first_stage_of_its_own(fitted: Train) -> None:
    digests = [
        fitted(f"few {seed}", "train_rows=150", f"seed={seed}").result["pretraining"]["digest"] for seed in (1, 2)
    ]
    assert len(set(digests)) == 2


@pytest.mark.parametrize("source", ["text", "views"])
def test_no_step_of_the_first_stage_is_plain_training_bit_for_bit(source: str, fitted: Train) -> None:
    plain = fitted("plain", "enhancer=none")
    none = fitted(f"no step {source}", "enhancer.epochs=0", f"enhancer.source={source}")
    assert none.result["pretraining"]["steps"] == 0
    expected, found = weights(plain), weights(none)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    for split in ("valid", "test"):
        assert none.result[split] == plain.result[split]


def test_a_run_begins_with_what_the_first_stage_moved_and_is_as_large_as_without(
    first: FinishedRun, fitted: Train, home: Path
) -> None:
    plain = fitted("plain", "enhancer=none")
    moved = load_file(home / "o/ctrl" / first.result["pretraining"]["digest"] / first_stage.WEIGHTS)
    assert "embedding.table.weight" in moved
    assert moved.keys() < weights(first).keys() == weights(plain).keys()
    for key in ("num_parameters", "flops_per_sample", "num_fields"):
        assert first.result[key] == plain.result[key]
    assert first.result["valid"]["logloss"] != plain.result["valid"]["logloss"]
    still = fitted("still", "optimizer.lr=1.0e-12", "trainer.first_bias=drawn")
    for name, value in moved.items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(weights(still)[name], value)


def test_a_finished_run_says_the_same_without_its_first_stage(
    first: FinishedRun, fitted: Train, home: Path, tmp_path: Path
) -> None:
    run = fitted("done")
    gone = {folder.name for folder, _ in unused(home / "o", [f"{home}/*"])}
    assert run.result["pretraining"]["digest"] not in gone
    aside = (home / "o/ctrl").rename(tmp_path / "aside")
    try:
        trained = load_trained(run.folder, outputs=home / "o", runtime=CPU)
        assert trained.model.enhancer is None
        assert evaluated_split(run.folder, trained, "test").metrics == run.result["test"]
        node = compose("export", [f"run={run.folder}", f"output={tmp_path}/bundle", f"outputs={home}/o", "format=pt2"])
        export(dict(node))
        assert not [path for path in (tmp_path / "bundle").rglob("*") if "moved" in path.name]
    finally:
        shutil.move(aside, home / "o/ctrl")


def test_a_stage_that_is_killed_leaves_nothing_half_written_and_is_made_again(
    first: FinishedRun, home: Path, tmp_path: Path
) -> None:
    shutil.copytree(home / "o/data", tmp_path / "o/data")
    code = (
        "import sys, time\nfrom fieldctr import compose, train\nfrom fieldctr.commands import first_stage\n"
        "def stop(*given, **named):\n    print('now', flush=True)\n    time.sleep(600)\n"
        "if sys.argv[1] == 'stop':\n    first_stage.write_json = stop\n"
        "train(compose('train', sys.argv[4:]), folder=sys.argv[2])\n"
    )
    own = words(tmp_path)
    call = [sys.executable, "-c", code, "stop", str(tmp_path / "run"), "-", *own]
    process = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ)
    assert process.stdout
    assert process.stdout.readline() == "now\n"
    hidden = {path.name[0] for path in (tmp_path / "o/ctrl").iterdir()}
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert hidden == {"."}
    run = train(compose("train", [*own, "resume=true"]), folder=tmp_path / "run")
    assert [path.name for path in (tmp_path / "o/ctrl").iterdir()] == [run.result["pretraining"]["digest"]]
    again = train(compose("train", words(home)), folder=home / "undisturbed")
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(run).items())


def test_two_calls_make_one_stage(home: Path, first: FinishedRun, fitted: Train, capsys: pytest.CaptureFixture) -> None:
    """Another process makes it: this one waits, and reads what that leaves."""
    from threading import Thread

    from fieldctr.llm.parts import parts_folder
    from fieldctr.locks import lock

    folder = home / "o/ctrl" / first.result["pretraining"]["digest"]
    aside = folder.rename(folder.with_name("aside"))
    release = lock(parts_folder(folder))

    def leave() -> None:
        while "makes the same stage: waiting" not in capsys.readouterr().err:
            time.sleep(0.05)
        aside.rename(folder)
        release()

    other = Thread(target=leave)
    other.start()
    assert fitted("waited", "seed=9").result["pretraining"] == first.result["pretraining"]
    other.join()


def test_a_trained_text_tower_reads_each_text_in_each_epoch(fitted: Train) -> None:
    own = ["encoder=tiny_llama", "enhancer.text_tower=trained", "enhancer.max_rows=24", "enhancer.batch_size=12"]
    results: dict[str, Any] = {}
    for epochs in (1, 2):
        results[str(epochs)] = fitted(f"trained {epochs}", *own, f"enhancer.epochs={epochs}").result["pretraining"]
    few, many = (results[key]["cost"]["tokens"] for key in ("1", "2"))
    assert 0 < few < many
    permuted = fitted("trained permuted", *own, "enhancer.source=permuted").result["pretraining"]
    assert permuted["history"] != results["1"]["history"]


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (["encoder=none"], "reads texts but there is no encoder: add encoder=untuned"),
        (["schema=merge"], "enhancer=ctrl reads the entities as the dataset's YAML gives them. Use schema=none"),
        (["warm_start=somewhere"], "warm_start and enhancer=ctrl do not go together: both are the weights"),
        (["enhancer.text_tower=trained"], "trains a language model, and random vectors come from none"),
        (["model=fat"], "model=fat and enhancer=ctrl do not fit together: CTRL aligns what a model's last layer reads"),
        (["model=lr"], "model=lr and enhancer=ctrl do not fit together"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_mistake_is_named(own: list[str], said: str, fitted: Train, home: Path) -> None:
    with pytest.raises(UserError, match=said):
        fitted(f"mistake {own[0]}", *own)
