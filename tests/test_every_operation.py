"""Ended before any operation on a file, a command called again leaves what an undisturbed one does; nothing else.

tests/faults.py tells operations by Python's audit hooks: code that is new is covered without being listed here.
"""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

ALL_MOMENTS = os.environ.get("ALL_MOMENTS") == "1"  # 3 CPU minutes instead of one
ROOT = Path(__file__).parents[1]
TRAIN = [
    *("tracker=none", "runtime.threads=1", "runtime.matmul=mkl", "model=lr", "embedding_dim=4"),
    *("trainer.batch_size=128", "trainer.max_epochs=1", "trainer.evals_per_epoch=2"),
]
SAID = {
    "seconds",
    "fit_seconds",
    "samples_per_s",
    "peak_memory_mb",
    "cost",
    "resume",
}  # what no two calls have in common
VOLATILE = {"run.json", "runs.txt", ".digests.json", "multirun.yaml"}
SSFT = ["encoder=tiny_llama", "encoder.values_per_field=2", "encoder.template=short", "runtime.threads=1"]


class Calls:
    """faults.py as a server, and a folder with a raw table and its YAML."""

    def __init__(self, place: Path) -> None:
        self.place = place
        (place / "raw").mkdir()
        (place / "conf/dataset").mkdir(parents=True)
        draw = random.Random(0)
        rows = [f"{draw.random() < 0.3:d},u{draw.randrange(20)},a{i % 9},{draw.random():.2f}\n" for i in range(300)]
        (place / "raw/clicks.csv").write_text("clicked,user,ad,price\n" + "".join(rows))
        (place / "conf/dataset/mini.yaml").write_text(
            f"# Mini.\nname: mini\nraw_dir: {place}/raw\nsource:\n  _target_: fieldctr.data.sources.tidy.read\n"
            "  files: clicks.csv\n  origin: x\n  separator: ','\n  null_values: []\n  label: {column: clicked}\n"
            "  split: {by: random, fractions: [0.6, 0.2, 0.2], seed: 1}\nmin_count: 1\ngroup: user\n"
            "fields: {user: {}, ad: {}, price: {kind: quantile, bins: 5}}\n"
        )
        self.dataset = ["--config-dir", str(place / "conf"), "dataset=mini", "outputs=o"]
        self.server = subprocess.Popen(
            [sys.executable, str(ROOT / "tests/faults.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        )  # fmt: skip

    def __call__(self, folder: Path, *arguments: str, fault: dict[str, Any] | None = None) -> tuple[int, str]:
        """Exit status and what was said."""
        folder.mkdir(parents=True, exist_ok=True)
        words = [word for argument in arguments for word in (self.dataset if argument == "DATASET" else [argument])]
        request = {"arguments": words, "folder": str(folder), "say": str(self.place / "said"), "fault": fault}
        assert self.server.stdin
        assert self.server.stdout
        self.server.stdin.write(f"{json.dumps(request)}\n")
        self.server.stdin.flush()
        status = int(self.server.stdout.readline())
        return status, (self.place / "said").read_text()

    def moments(self, start: Path, *arguments: str) -> Iterator[Path]:
        """What a kill before each operation of the call in a copy of `start` would leave, each state once."""
        home, copies = fresh(self.place, start), self.place / "copies"
        shutil.rmtree(copies, ignore_errors=True)
        copies.mkdir()
        status, said = self(home, *arguments, fault={"kind": "copy", "to": str(copies)})
        assert status == 0, said
        seen = set()
        for copy in sorted(copies.iterdir()):
            state = json.dumps(sorted((name.rpartition(".tmp")[1] or name, text) for name, text in tree(copy).items()))
            if state not in seen:
                seen.add(state)
                yield copy


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Calls]:
    calls = Calls(tmp_path_factory.mktemp("faults"))
    yield calls
    calls.server.communicate()


@pytest.fixture(scope="module")
def prepared(calls: Calls) -> Path:
    """A folder in which the table is prepared."""
    home = calls.place / "prepared"
    status, said = calls(home, "prepare", "DATASET")
    assert status == 0, said
    return home


@pytest.fixture(scope="module")
def trained(calls: Calls, prepared: Path) -> Path:
    """The same with a run of other settings in r."""
    home = shutil.copytree(prepared, calls.place / "trained")
    status, said = calls(home, "train", "DATASET", *TRAIN, "optimizer.lr=0.5", "hydra.run.dir=r")
    assert status == 0, said
    return home


def fresh(place: Path, start: Path | None) -> Path:
    """A copy of a folder, or an empty one."""
    home = place / "home"
    shutil.rmtree(home, ignore_errors=True)
    if start is None:
        home.mkdir()
    else:
        shutil.copytree(start, home)
    return home


def tree(folder: Path) -> dict[str, str]:
    """What is in a folder: by path the digest of what two calls have in common."""
    return {
        path.relative_to(folder).as_posix(): content(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() or not any(path.iterdir())
    }


def content(path: Path) -> str:
    if path.is_dir() or path.name in VOLATILE:
        return ""
    data = path.read_bytes()
    if path.name == "checksums.json" and not (path.parent / "train.ids.npy").exists():
        return ""  # of files with seconds in them
    if path.suffix in (".json", ".jsonl"):
        with suppress(ValueError):  # half a file
            data = json.dumps([without_seconds(json.loads(line)) for line in lines(path)]).encode()
    return hashlib.sha256(data).hexdigest()


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]


def without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_seconds(each) for key, each in value.items() if key not in SAID}
    return [without_seconds(each) for each in value] if isinstance(value, list) else value


def test_prepare(calls: Calls) -> None:
    survives(calls, calls.place / "empty", ["prepare", "DATASET"])


def test_train(calls: Calls, prepared: Path) -> None:
    survives(calls, prepared, ["train", "DATASET", *TRAIN, "hydra.run.dir=r"], "resume=true")


def test_train_over_an_earlier_run(calls: Calls, trained: Path) -> None:
    """Resumed, it is never the earlier run that answers, and all of that lies in earlier-1."""
    survives(calls, trained, ["train", "DATASET", *TRAIN, "hydra.run.dir=r"], "resume=true")


def test_ssft(calls: Calls, prepared: Path) -> None:
    survives(calls, prepared, ["ssft", "DATASET", *SSFT], every=5)


def test_a_sweep(calls: Calls, prepared: Path) -> None:
    sweep = ["train", "-m", "DATASET", *TRAIN, "seed=1,2", "trainer.evals_per_epoch=1", "hydra.sweep.dir=s"]
    survives(calls, prepared, sweep, "resume=true", every=5)


def test_predict_and_evaluate(calls: Calls, trained: Path) -> None:
    survives(calls, trained, ["predict", "run=r", f"input={calls.place}/raw/clicks.csv", "output=s.csv", "outputs=o"])
    survives(calls, trained, ["evaluate", "run=r", "outputs=o"])


def survives(calls: Calls, start: Path, arguments: list[str], *again: str, every: int = 3) -> None:
    """`again` is what a user adds to go on; of the moments each `every`-th is tried, or with ALL_MOMENTS all."""
    start.mkdir(exist_ok=True)
    home = fresh(calls.place, start)
    status, said = calls(home, *arguments)
    assert status == 0, said
    expected = tree(home)
    tried = 0
    for copy in list(calls.moments(start, *arguments))[:: 1 if ALL_MOMENTS else every]:
        home = fresh(calls.place, copy)
        status, said = calls(home, *arguments, *again)
        if again and "another configuration" in said:  # nothing had happened yet: it is still the earlier run's folder
            assert tree(copy) == tree(start)
            status, said = calls(home, *arguments)
        assert status == 0, (copy, said)
        found = tree(home)
        assert found == expected, (copy, different(found, expected))
        tried += 1
    assert tried > 1


def different(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))


def test_a_kill_leaves_what_the_copies_have(calls: Calls, prepared: Path) -> None:
    """That a copy before an operation is what a kill there leaves, a few real kills tell."""
    arguments = ["train", "DATASET", *TRAIN, "hydra.run.dir=r"]
    home = fresh(calls.place, prepared)
    calls(home, *arguments)
    expected = tree(home)
    for at in random.Random(2).sample(range(1, 60), 4):
        home = fresh(calls.place, prepared)
        status, said = calls(home, *arguments, fault={"kind": "kill", "at": at})
        assert status == -signal.SIGKILL, said
        status, said = calls(home, *arguments, "resume=true")
        assert status == 0, said
        assert different(tree(home), expected) == []


WAYS = {  # of a call, and what of it a full disk cannot fail
    "prepare": ["prepare", "DATASET"],
    "train": ["train", "DATASET", *TRAIN, "hydra.run.dir=r", "resume=true"],
    "ssft": ["ssft", "DATASET", *SSFT],
}


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize(
    ("error", "cause"),
    [
        ("ENOSPC", "the disk is full"),
        ("EROFS", "the file system is read-only"),
        ("EDQUOT", "the quota"),
        ("EIO", "disk"),
    ],
)
def test_a_disk_that_fails_is_named_and_the_next_call_goes_on(calls: Calls, name: str, error: str, cause: str) -> None:
    draw = random.Random(f"{name} {error}")
    fails(calls, WAYS[name], {"kind": error, "at": draw.randrange(1, 40)}, cause)


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("trial", range(5))
def test_a_disk_that_is_full_in_the_middle_of_a_file(calls: Calls, name: str, trial: int) -> None:
    draw = random.Random(f"{name} {trial}")
    fails(
        calls, WAYS[name], {"kind": "limit", "bytes": int(10 ** draw.uniform(1, 3))}, "would be larger than the system"
    )


def fails(calls: Calls, arguments: list[str], fault: dict[str, Any], cause: str) -> None:
    whole, home = calls.place / f"whole {arguments[0]}", fresh(calls.place, None)
    if not whole.exists():
        assert calls(whole, *arguments)[0] == 0
    status, said = calls(home, *arguments, fault=fault)
    assert status == 1, said
    last = said.splitlines()[-1]
    assert last.startswith("fieldctr: "), said
    assert cause in last
    assert "Traceback" not in said
    assert "clicks.csv" not in last  # the table has no fault
    assert re.search(r"\b[or]\b", last.partition(": ")[2]), last
    left = [path.name for path in home.rglob(".*") if not path.name.endswith((".shards", ".digests.json"))]
    assert left == []
    status, said = calls(home, *arguments)
    assert status == 0, said
    assert different(tree(home), tree(whole)) == []
