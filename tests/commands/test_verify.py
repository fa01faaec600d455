"""Whatever is damaged of what is stored: verify names it, and no command uses it."""

import itertools
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from calls import SSFT, TRAIN, Calls
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fieldctr.catalog import conf_dir
from fieldctr.checksums import CHECKSUMS_FILE, sealed
from fieldctr.commands import ssft_cache, verify
from fieldctr.commands.verify import verified
from fieldctr.errors import UserError
from fieldctr.training import checkpoint
from fieldctr.training.runtime import remembered_matmul

pytestmark = pytest.mark.slow

KINDS = ("cut", "flipped", "gone", "emptied", "longer")
TREES = ["boosting.max_rounds=5", "logistic.C=[1]", "threads=1"]


@pytest.fixture(scope="module")
def stored(calls: Calls, prepared: Path) -> Path:
    """A folder with one of everything that is kept."""
    home = calls.place / "stored"
    shutil.copytree(prepared, home)
    run = ["train", "DATASET", *TRAIN, "hydra.run.dir=o/train/r"]
    baseline = ["baseline", "DATASET", *TREES, "run=o/train/r"]
    for arguments in ([*run, "optimizer.lr=0.5"], run, ["ssft", "DATASET", *SSFT], baseline):
        status, said = calls(home, *arguments)
        assert status == 0, said
    kill = {"kind": "kill", "at": 1, "on": "model.safetensors"}
    assert calls(home, *run[:-1], "hydra.run.dir=o/train/u", fault=kill)[0] == -signal.SIGKILL
    return home


def folders(home: Path) -> dict[str, Path]:
    """What is stored there, by kind."""
    stages = {path.parent.name: path for path in (home / "o").glob("*/[0-9a-f]*") if path.parent.name in KEPT}
    step = max((home / "o/train/u/checkpoint").iterdir())
    run = home / "o/train/r"
    return stages | {"run": run, "aside": run / "earlier-1", "checkpoint": step}


def files(folder: Path) -> list[Path]:
    return [folder / name for name in (*sealed(folder, cure=""), CHECKSUMS_FILE)]


@contextmanager
def damaged(path: Path, kind: str) -> Iterator[None]:
    data = path.read_bytes()
    changed = bytearray(data)
    changed[len(data) // 2] ^= 8
    texts = {"cut": data[: len(data) // 2], "flipped": changed, "emptied": b"", "longer": data + b"}"}
    try:
        if kind == "gone":
            path.unlink()
        else:
            path.write_bytes(texts[kind])
        yield
    finally:
        path.write_bytes(data)


def complaints(home: Path) -> list[str]:
    return [complaint for _, complaint in verified(home / "o", None) if complaint]


KEPT = ("data", "field_embeddings", "machine", "baseline", "run", "aside", "checkpoint")
CURES = {
    "data": "Remove {folder}, and call again: it is made anew",
    "run": "hydra.run.dir={folder}",
    "checkpoint": "Remove {folder}, or start anew with resume=false",
}


@pytest.mark.parametrize("kept", KEPT)
def test_verify_names_the_file_and_its_cure(kept: str, stored: Path) -> None:
    folder, tried = folders(stored)[kept], 0
    for path, kind in itertools.product(files(folder), KINDS):
        with damaged(path, kind):
            found = complaints(stored)
        assert len(found) == 1, (path, kind, found)
        if path.name == CHECKSUMS_FILE and kind == "flipped":  # what it says of another file may have changed
            assert str(folder) in found[0]
        elif path.name == "result.json" and kind == "gone":
            assert f"run={folder}: no result.json" in found[0]
        else:
            assert str(path) in found[0], (kind, found)
        cure = CURES.get({"aside": "run", "run": "run", "checkpoint": "checkpoint"}.get(kept, "data"), "")
        assert cure.format(folder=folder) in found[0], (path, kind, found)
        tried += 1
    assert tried >= 15
    assert complaints(stored) == []


def node(command: str, *overrides: str, home: Path, calls: Calls | None = None) -> dict[str, Any]:
    own = [f"hydra.searchpath=[file://{calls.place}/conf]", "dataset=mini"] if calls else []
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        composed = compose(command, [*own, f"outputs={home}/o", *overrides])
    found: Any = OmegaConf.to_container(composed, resolve=True)
    return found


def main(name: str, node: dict[str, Any]) -> Callable[[], None]:
    return lambda: import_module(f"fieldctr.commands.{name}").main(node)


@pytest.fixture(scope="module")
def uses(stored: Path, calls: Calls) -> dict[str, tuple[Callable[[], object], Path | None, set[str]]]:
    """By name: what reads stored things, the file that it leaves, and what it reads and must name if it is damaged."""
    run, here = stored / "o/train/r", ["runtime.threads=1", "runtime.matmul=mkl"]
    rows, scored = calls.place / "raw/clicks.csv", stored / "scored.csv"
    place = folders(stored)
    predict = ["predict", f"run={run}", f"input={rows}", f"output={scored}", *here]
    return {
        "prepare": (main("prepare", node("prepare", home=stored, calls=calls)), None, {"data"}),
        "evaluate": (
            main("evaluate", node("evaluate", f"run={run}", *here, home=stored)), run / "evaluate-test.json", set(),
        ),
        "predict": (main("predict", node(*predict, home=stored)), scored, set()),
        "baseline": (
            main("baseline", node("baseline", *TREES, f"run={run}", home=stored, calls=calls)),
            run / "evaluate-baseline.json",
            {"data", "baseline"},
        ),
        "ssft show": (
            lambda: ssft_cache.main("show", place["field_embeddings"].name, f"outputs={stored}/o"),
            None,
            {"field_embeddings"},
        ),
        "machine": (lambda: remembered_matmul(stored / "o/machine", 1), None, {"machine"}),
        "resume": (lambda: checkpoint.load(stored / "o/train/u", of=fit_name(stored)), None, {"checkpoint"}),
    }  # fmt: skip


def fit_name(home: Path) -> str:
    return json.loads((folders(home)["checkpoint"] / checkpoint.STATE).read_text())["of"]


@pytest.mark.parametrize("kept", KEPT)
def test_no_command_uses_what_is_damaged(
    kept: str, stored: Path, uses: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """It names the file, or has the result that it would have without the damage: then it does not read it."""
    folder = folders(stored)[kept]

    def result(name: str) -> tuple[str, bytes]:
        use, left, _ = uses[name]
        capsys.readouterr()
        use()
        return capsys.readouterr().out, left.read_bytes() if left else b""

    whole = {name: result(name) for name in uses}
    kinds, named = itertools.cycle(KINDS), 0
    for path in files(folder):
        for name, (_, _, reads) in uses.items():
            kind = next(kinds)
            if name == "resume" and path.name == checkpoint.STATE:
                continue  # the name of the fit is read from it
            error = ""
            with damaged(path, kind):
                try:
                    assert result(name) == whole[name], (name, path, kind)
                except UserError as caught:
                    error = str(caught)
            if error:
                assert folder.name in error, (name, path, kind)
                assert path.name in error or path.name == CHECKSUMS_FILE, (name, path, kind)
                named += 1
            else:
                assert kept not in reads, (name, path, kind)
    assert named or kept == "aside"


def test_exit_codes_and_words(stored: Path, calls: Calls) -> None:
    status, said = calls(stored, "verify", "outputs=o")
    assert status == 0, said
    assert said == "whole: baseline 1, data 1, field_embeddings 1, machine 1, runs 2, unfinished runs 1\n"
    table, run = folders(stored)["data"], folders(stored)["run"]
    with damaged(table / "train.ids.npy", "flipped"), damaged(run / "model.safetensors", "cut"):
        status, said = calls(stored, "verify", "outputs=o")
    assert status == 1
    assert said.splitlines()[-1] == "damaged: 2"
    here = table.relative_to(stored)
    assert f"{here}/train.ids.npy is damaged: other bytes than were written. Remove {here}" in said
    assert f"{run.relative_to(stored)}/model.safetensors is damaged" in said
    assert "Traceback" not in said
    status, said = calls(stored, "verify", "outputs=nowhere")
    assert status == 2
    assert "no such folder" in said


def test_what_a_disk_cannot_read_is_named_and_the_rest_is_read(
    stored: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path, real: Any = verify.check_stage) -> None:
        if path.parent.name == "data":
            raise OSError(5, "Input/output error", str(path / "train.ids.npy"))
        real(path)

    monkeypatch.setattr(verify, "check_stage", broken)
    with pytest.raises(SystemExit) as end:
        verify.main({"data_root": "", "outputs": str(stored / "o"), "runs": None})
    assert end.value.code == 1
    said = capsys.readouterr().out
    assert "train.ids.npy: the disk reports an error" in said
    assert "field_embeddings 1" in said


@pytest.mark.parametrize(
    ("kept", "file", "arguments"),
    [
        ("data", "train.ids.npy", ["train", "DATASET", *TRAIN, "hydra.run.dir=new"]),
        ("checkpoint", "tensors.safetensors", ["train", "DATASET", *TRAIN, "hydra.run.dir=o/train/u", "resume=true"]),
        ("run", "model.safetensors", ["train", "DATASET", *TRAIN, "hydra.run.dir=new", "warm_start=o/train/r"]),
        ("run", "metrics.jsonl", ["train", "DATASET", *TRAIN, "hydra.run.dir=o/train/r", "resume=true"]),
    ],
)  # fmt: skip
def test_no_training_starts_from_what_is_damaged(
    kept: str, file: str, arguments: list[str], stored: Path, calls: Calls
) -> None:
    path = folders(stored)[kept] / file
    with damaged(path, "flipped"):
        status, said = calls(stored, *arguments)
    assert "Traceback" not in said
    if file == "metrics.jsonl":  # nobody computes with it: the result is the one that was recorded
        assert status == 0
        assert "test AUC" in said
    else:
        assert status == 2, said
        assert file in said
        assert path.parent.name in said
    assert not (stored / "new/result.json").exists()
    shutil.rmtree(stored / "new", ignore_errors=True)
    assert complaints(stored) == []
