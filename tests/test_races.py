"""Two processes at once: the same bytes or one named refusal, whichever moment one of them stands still at."""

import shutil
from pathlib import Path

import pytest
from calls import SSFT, TRAIN, Calls, Held, different, fresh, tree

pytestmark = pytest.mark.slow

RUN = ["train", "DATASET", *TRAIN, "hydra.run.dir=r"]
SWEEP = ["train", "-m", "DATASET", *TRAIN, "seed=1,2", "trainer.evals_per_epoch=1", "hydra.sweep.dir=s", "resume=true"]
MADE = "is being made by another process"
EVALUATE = ["evaluate", "run=r", "outputs=o", "runtime.threads=1", "runtime.matmul=mkl"]
KNOWN: dict[str, dict[str, str]] = {}  # what `undisturbed` has found


def undisturbed(calls: Calls, start: Path | None, *calls_in_order: list[str]) -> dict[str, str]:
    """What the calls leave, one after the other."""
    key = str((start, calls_in_order))
    if key not in KNOWN:
        home = fresh(calls.place, start)
        for arguments in calls_in_order:
            status, said = calls(home, *arguments)
            assert status == 0, said
        KNOWN[key] = tree(home)
    return KNOWN[key]


def beside(calls: Calls, home: Path, arguments: list[str], other: Held) -> tuple[int, str]:
    """Begin a call while the other waits; let that go on when this one has ended, or waits for it."""
    said = calls.place / "said-beside"
    said.write_text("")
    own = Held(lambda: calls(home, *arguments, say=said), calls.place / "unused")
    own.wait(lambda: "waiting for it" in said.read_text())
    other.go_on()
    return own.go_on()


def clean(text: str) -> bool:
    return "Traceback" not in text and "Errno" not in text


@pytest.mark.parametrize(
    ("on", "waits"),
    [("shard.json", True), (".digests.json", False)],
)
def test_two_preparations_of_one_table(on: str, waits: bool, calls: Calls) -> None:
    call = ["prepare", "DATASET"]
    expected = undisturbed(calls, None, call)
    home = fresh(calls.place, None)
    with calls.held(home, *call, on=on) as first:
        status, said = beside(calls, home, call, first)
        assert status == 0, said
        assert ("waiting for it" in said) == waits
        status, said = first.go_on()
        assert status == 0, said
    assert different(tree(home), expected) == []


@pytest.mark.parametrize("on", [".shards/key.json", "facts.json"])
def test_two_versions_of_one_table(on: str, calls: Calls) -> None:
    other = calls.place / "raw2"
    shutil.rmtree(other, ignore_errors=True)
    shutil.copytree(calls.place / "raw", other)
    (other / "clicks.csv").write_text("".join((other / "clicks.csv").read_text().splitlines(keepends=True)[:250]))
    versions = [["prepare", "DATASET"], ["prepare", "DATASET", f"dataset.raw_dir={other}"]]
    expected = undisturbed(calls, None, *versions)
    for one, two in (versions, versions[::-1]):
        home = fresh(calls.place, None)
        with calls.held(home, *one, on=on) as first:
            status, said = beside(calls, home, two, first)
            assert status == 0, said
            assert "starts anew" not in said
            status, said = first.go_on()
            assert status == 0, said
        assert different(tree(home), expected) == []


@pytest.mark.parametrize("on", ["step-", "result.json"])
def test_two_trainings_into_one_folder(on: str, calls: Calls, prepared: Path) -> None:
    expected = undisturbed(calls, prepared, RUN)
    home = fresh(calls.place, prepared)
    with calls.held(home, *RUN, on=on) as first:
        for more in ([], ["resume=true"]):
            status, said = calls(home, *RUN, *more)
            assert status == 2, said
            assert MADE in said
            assert clean(said)
        status, said = first.go_on()
        assert status == 0, said
    assert different(tree(home), expected) == []


@pytest.mark.parametrize("resume", [True, False])
def test_a_training_that_found_the_folder_free_and_then_not(resume: bool, calls: Calls, prepared: Path) -> None:
    """Held before it has the folder, it finds a whole run there: with resume that is the answer, else it goes aside."""
    expected = undisturbed(calls, prepared, *([RUN] if resume else [RUN, RUN]))
    home = fresh(calls.place, prepared)
    with calls.held(home, *RUN, f"resume={resume}", on="r 511", at=2) as first:
        assert not (home / "r/config.json").exists()
        assert calls(home, *RUN)[0] == 0
        result = (home / "r/result.json").read_bytes()
        status, said = first.go_on()
        assert status == 0, said
    assert different(tree(home), expected) == []
    assert (home / ("r" if resume else "r/earlier-1") / "result.json").read_bytes() == result
    assert calls(home, "verify", "outputs=.")[0] == 0


def test_two_sweeps_into_one_folder(calls: Calls, prepared: Path) -> None:
    expected = undisturbed(calls, prepared, SWEEP)
    home = fresh(calls.place, prepared)
    with calls.held(home, *SWEEP, on="step-") as first:
        status, said = calls(home, *SWEEP)
        assert status == 2
        assert MADE in said
        assert clean(said)
        status, said = first.go_on()
        assert status == 0, said
    assert different(tree(home), expected) == []


def test_two_evaluations_of_one_run(calls: Calls, trained: Path) -> None:
    expected = undisturbed(calls, trained, EVALUATE)
    home = fresh(calls.place, trained)
    with calls.held(home, *EVALUATE, on="evaluate-") as first:
        assert calls(home, *EVALUATE)[0] == 0
        status, said = first.go_on()
        assert status == 0, said
    assert different(tree(home), expected) == []


@pytest.mark.parametrize("on", ["r/config.json", "r/checksums.json", "r/model.safetensors", "r/evaluate-"])
def test_an_evaluation_of_a_run_that_is_trained_anew_is_refused(on: str, calls: Calls, trained: Path) -> None:
    """It would give the numbers of one under the name of the other."""
    expected = undisturbed(calls, trained, RUN)
    home = fresh(calls.place, trained)
    with calls.held(home, *EVALUATE, on=on, at=2 if "checksums" in on else 1, reads=True) as one:
        assert calls(home, *RUN)[0] == 0
        status, said = one.go_on()
    found = tree(home)
    if on == "r/config.json":  # it had read nothing yet: it is the new run's
        assert status == 0
        assert found.pop("r/evaluate-test.json")
    else:
        assert status == 2, said
        assert "made anew" in said or "is damaged" in said
    assert clean(said)
    assert different(found, expected) == []


@pytest.mark.parametrize("on", ["step-", "r/result.json"])
def test_what_is_trained_anew_is_not_evaluated(on: str, calls: Calls, trained: Path) -> None:
    expected = undisturbed(calls, trained, RUN)
    home = fresh(calls.place, trained)
    with calls.held(home, *RUN, on=on, at=2 if on == "r/result.json" else 1) as first:
        status, said = calls(home, *EVALUATE)
        assert status == 2, said
        assert "no result.json, so it has not finished" in said
        assert first.go_on()[0] == 0
    assert different(tree(home), expected) == []


def test_two_predictions_into_one_file(calls: Calls, trained: Path) -> None:
    call = ["predict", "run=r", f"input={calls.place}/raw/clicks.csv", "output=s.csv", "outputs=o"]
    expected = undisturbed(calls, trained, call)
    home = fresh(calls.place, trained)
    with calls.held(home, *call, on="s.csv") as first:
        assert calls(home, *call)[0] == 0
        status, said = first.go_on()
        assert status == 0, said
    assert different(tree(home), expected) == []


def test_rows_that_change_while_they_are_scored(calls: Calls, trained: Path) -> None:
    home = fresh(calls.place, trained)
    rows = (calls.place / "raw/clicks.csv").read_text().splitlines(keepends=True)
    (home / "rows.csv").write_text("".join(rows))
    with calls.held(home, "predict", "run=r", "input=rows.csv", "output=s.csv", "outputs=o", on="s.csv") as one:
        (home / "rows.csv").write_text("".join(rows[:1] + rows[2:]))
        status, said = one.go_on()
    assert status == 2, said
    assert "rows.csv changed while it was read. Nothing was written" in said
    assert not list(home.glob("*s.csv*.tmp"))
    assert not (home / "s.csv").exists()


def test_two_ssft(calls: Calls, prepared: Path) -> None:
    call = ["ssft", "DATASET", *SSFT]
    expected = undisturbed(calls, prepared, call)
    home = fresh(calls.place, prepared)
    with calls.held(home, *call, on="account.json") as first:
        assert calls(home, *call)[0] == 0
        status, said = first.go_on()
        assert status == 0, said
    assert different(tree(home), expected) == []


@pytest.mark.parametrize("on", ["shard.json", "checksums.json"])
def test_clean_leaves_what_another_process_prepares(on: str, calls: Calls) -> None:
    call = ["prepare", "DATASET"]
    expected = undisturbed(calls, None, call)
    home = fresh(calls.place, None)
    with calls.held(home, *call, on=on) as first:
        before = tree(home)
        status, said = calls(home, "clean", "outputs=o")
        assert status == 0, said
        assert clean(said)
        assert tree(home) == before
        status, said = first.go_on()
        assert status == 0, said
    assert different(tree(home), expected) == []


def test_clean_leaves_what_another_process_trains_on(calls: Calls, prepared: Path) -> None:
    expected = undisturbed(calls, prepared, RUN)
    home = fresh(calls.place, prepared)
    with calls.held(home, *RUN, on="step-") as first:
        assert calls(home, "clean", "outputs=o")[0] == 0
        assert first.go_on()[0] == 0
    assert different(tree(home), expected) == []


def test_two_cleans(calls: Calls, prepared: Path) -> None:
    for on in (".tmp", "key.json", "train.ids.npy"):
        home = fresh(calls.place, prepared)
        with calls.held(home, "clean", "outputs=o", on=on) as first:
            status, said = calls(home, "clean", "outputs=o")
            assert (status, clean(said)) == (0, True), said
            status, said = first.go_on()
            assert (status, clean(said)) == (0, True), said
        assert [path.name for path in (home / "o/data").iterdir()] == [".digests.json"]
