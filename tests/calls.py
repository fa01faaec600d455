"""Calls of the console script through tests/faults.py, in folders that hold a small raw table, and what they leave."""

import hashlib
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

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
LEDGER = "test_reads-"  # of who read test and when: it has a line for each evaluation, also for one made again
VOLATILE = {"run.json", "runs.txt", ".digests.json", "multirun.yaml"}
SSFT = ["encoder=tiny_llama", "encoder.values_per_field=2", "encoder.template=short", "runtime.threads=1"]

TEXTS = [
    *("entity=row", "encode=true", "encoder=tiny_llama", "encoder.tuning.micro_batch=1", "runtime.threads=1"),
]
KNOWLEDGE = [
    *("knowledge=generate", "encoder@knowledge.writer=tiny_llama", "knowledge.new_tokens=2"),
    "knowledge.writer.tuning.micro_batch=16",
]
VALUES = [
    *("model=fm", "enhancer=llactr_values", "encoder=tiny_llama", "encoder.values_per_field=2"),
    *("encoder.tuning.micro_batch=1", "enhancer.min_rows=1"),
]


class Calls:
    """faults.py as a server, and a folder with a raw table and its YAML."""

    def __init__(self, place: Path) -> None:
        self.place, self.numbers = place, itertools.count()
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
            stdin=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        )  # fmt: skip

    def __call__(
        self, folder: Path, *arguments: str, fault: dict[str, Any] | None = None, say: Path | None = None
    ) -> tuple[int, str]:
        """Exit status and what was said."""
        words = [word for argument in arguments for word in (self.dataset if argument == "DATASET" else [argument])]
        say = say or self.place / f"said-{next(self.numbers)}"
        return self.ended(folder, words, say, fault=fault), say.read_text()

    def script(self, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What the console script does in the environment of the test; it would import everything first."""
        number = next(self.numbers)
        say, told = self.place / f"said-{number}", self.place / f"told-{number}"
        status = self.ended(folder, [*arguments], say, told=str(told), environment={**os.environ})
        return subprocess.CompletedProcess(arguments, status, say.read_text(), told.read_text())

    def ended(
        self,
        folder: Path,
        words: list[str],
        say: Path,
        *,
        told: str | None = None,
        environment: dict[str, str] | None = None,
        fault: dict[str, Any] | None = None,
    ) -> int:
        """The exit status of a call that the server makes: see faults.py."""
        folder.mkdir(parents=True, exist_ok=True)
        status = self.place / f"status-{next(self.numbers)}"
        request = {"arguments": words, "folder": str(folder), "say": str(say), "status": str(status)}
        request |= {"told": told, "environment": environment, "fault": fault}
        assert self.server.stdin
        self.server.stdin.write(f"{json.dumps(request)}\n")
        self.server.stdin.flush()
        while not status.exists():
            assert self.server.poll() is None
            time.sleep(0.002)
        return int(status.read_text())

    def close(self) -> None:
        """End the server."""
        self.server.communicate()

    @contextmanager
    def held(self, folder: Path, *arguments: str, on: str, at: int = 1, reads: bool = False) -> Iterator["Held"]:
        """The call, which waits before the `at`-th operation whose arguments have the text `on`."""
        reached, until = (self.place / name for name in ("reached", "until"))
        for path in (reached, until):
            path.unlink(missing_ok=True)
        fault = {"kind": "pause", "at": at, "on": on, "reads": reads, "reached": str(reached), "until": str(until)}
        held = Held(lambda: self(folder, *arguments, fault=fault), until)
        try:
            held.wait(reached.exists)
            assert reached.exists(), held.go_on()
            yield held
        finally:
            held.go_on()

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


class Held:
    """A call in a thread; it waits somewhere until it may go on."""

    def __init__(self, call: Callable[[], tuple[int, str]], until: Path) -> None:
        self.until, self.results = until, list[tuple[int, str]]()
        self.thread = threading.Thread(target=lambda: self.results.append(call()))
        self.thread.start()

    def wait(self, condition: Callable[[], object]) -> None:
        """Until something is true, or the call has ended."""
        while self.thread.is_alive() and not condition():
            time.sleep(0.005)

    def go_on(self) -> tuple[int, str]:
        """Let it go on to its end; exit status and what was said."""
        self.until.touch()
        self.thread.join()
        return self.results[0]


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
    if path.is_dir() or path.name in VOLATILE or path.name.startswith(LEDGER):
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


def different(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
