"""Ended before any operation on a file, a command called again leaves what an undisturbed one does; nothing else.

tests/faults.py tells operations by Python's audit hooks: code that is new is covered without being listed here.
"""

import os
import random
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from calls import KNOWLEDGE, SSFT, TEXTS, TRAIN, VALUES, Calls, different, fresh, tree

pytestmark = pytest.mark.slow

ALL_MOMENTS = os.environ.get("ALL_MOMENTS") == "1"  # 3 CPU minutes instead of one


def test_prepare(calls: Calls) -> None:
    assert moments_survived(calls, calls.place / "empty", ["prepare", "DATASET"]) > 1


def test_train(calls: Calls, prepared: Path) -> None:
    assert moments_survived(calls, prepared, ["train", "DATASET", *TRAIN, "hydra.run.dir=r"], "resume=true") > 1


def test_train_behind_a_first_stage(calls: Calls, prepared: Path) -> None:
    own = ["enhancer=ctrl", "encoder=random", "enhancer.max_rows=60", "enhancer.epochs=1", "enhancer.batch_size=32"]
    words = ["train", "DATASET", *TRAIN, "model=fm", *own, "hydra.run.dir=r"]
    assert moments_survived(calls, prepared, words, "resume=true", every=20) > 1


def test_train_over_an_earlier_run(calls: Calls, trained: Path) -> None:
    """Resumed, it is never the earlier run that answers, and all of that lies in earlier-1."""
    assert moments_survived(calls, trained, ["train", "DATASET", *TRAIN, "hydra.run.dir=r"], "resume=true") > 1


def test_ssft(calls: Calls, prepared: Path) -> None:
    assert moments_survived(calls, prepared, ["ssft", "DATASET", *SSFT], every=10) > 1


def test_texts(calls: Calls, prepared: Path) -> None:
    assert moments_survived(calls, prepared, ["texts", "DATASET", *TEXTS], every=20) > 1


def test_a_sweep(calls: Calls, prepared: Path) -> None:
    sweep = ["train", "-m", "DATASET", *TRAIN, "seed=1,2", "trainer.evals_per_epoch=1", "hydra.sweep.dir=s"]
    assert moments_survived(calls, prepared, sweep, "resume=true", every=20) > 1


def test_predict_and_evaluate(calls: Calls, trained: Path) -> None:
    predict = ["predict", "run=r", f"input={calls.place}/raw/clicks.csv", "output=s.csv", "outputs=o"]
    assert moments_survived(calls, trained, predict) > 1
    assert moments_survived(calls, trained, ["evaluate", "run=r", "outputs=o"]) > 1


def moments_survived(calls: Calls, start: Path, arguments: list[str], *again: str, every: int = 5) -> int:
    """How many moments were tried, each of which must leave what an undisturbed call does.

    `again` is what a user adds to go on; each `every`-th moment is tried, or with ALL_MOMENTS all.
    """
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
    return tried


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


KILLED = {  # a call, the names of its parts, and how many there are at least
    "texts": (["texts", "DATASET", *TEXTS], "npy", 16),
    "knowledge": (["texts", "DATASET", *TEXTS, *KNOWLEDGE], "json", 16),
    "values": (["train", "DATASET", *TRAIN, *VALUES, "hydra.run.dir=r", "resume=true"], "npy", 2),
}


@pytest.mark.parametrize("name", KILLED)
def test_a_text_stage_killed_ten_times_leaves_what_an_undisturbed_one_does(
    name: str, calls: Calls, prepared: Path
) -> None:
    """One folder, in which each call gets further, to an operation on another part."""
    arguments, ending, parts = KILLED[name]
    home, draw = fresh(calls.place, prepared), random.Random(4)
    assert calls(home, *arguments)[0] == 0
    expected = tree(home)
    home = fresh(calls.place, prepared)
    for part in sorted(draw.sample(range(parts), min(parts, 10))):
        fault = {"kind": "kill", "at": draw.randrange(1, 4), "on": f"{part:06d}.{ending}"}
        status, said = calls(home, *arguments, fault=fault)
        assert status == -signal.SIGKILL, said
    status, said = calls(home, *arguments)
    assert status == 0, said
    assert "of which an earlier call read" in said
    assert different(tree(home), expected) == []


WAYS = {  # of a call, and what of it a full disk cannot fail
    "prepare": ["prepare", "DATASET"],
    "train": ["train", "DATASET", *TRAIN, "hydra.run.dir=r", "resume=true"],
    "ssft": ["ssft", "DATASET", *SSFT],
    "texts": ["texts", "DATASET", *TEXTS],
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
@pytest.mark.parametrize("trial", range(3))
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
