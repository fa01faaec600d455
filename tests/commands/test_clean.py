"""`fieldctr clean`: what a run reads stays wherever the run lies, what nothing refers to goes, and nothing else."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from fieldctr.artifacts import KEY_FILE, cached, digest
from fieldctr.checksums import CHECKSUMS_FILE
from fieldctr.commands import clean
from fieldctr.commands.clean import unused
from fieldctr.data import shards
from fieldctr.data.prepare import VERSION
from fieldctr.data.shards.shards import SHARD_FILE
from fieldctr.disk import write_json
from fieldctr.errors import UserError
from fieldctr.locks import lock
from fieldctr.raw_files import stamps
from fieldctr.runs import RECORD, Run

pytestmark = pytest.mark.slow


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    return tmp_path / "outputs"


def stage(outputs: Path, name: str, kind: str = "data") -> Path:
    return cached(outputs / kind, {"of": name}, lambda folder: (folder / "x").write_text(name * 1000))


def run(folder: Path, *reads: Path, seed: int = 1, finished: bool = True, resume: bool = False) -> Path:
    with Run.start(folder, {"seed": seed}, resume=resume) as own:
        own.reads(reads)
        if finished:
            own.finish({"data_digest": reads[0].name, "valid": {}, "test": {}})
    return folder


def gone(outputs: Path, runs: str | None = None) -> set[Path]:
    return {path for path, _ in unused(outputs, runs)}


def test_answers_stay_as_long_as_vectors_that_were_read_behind_them(outputs: Path) -> None:
    written, loose = stage(outputs, "written", "knowledge"), stage(outputs, "loose", "knowledge")

    def vectors(folder: Path) -> None:
        write_json(folder / "account.json", {"knowledge": {"digest": written.name}})

    read = cached(outputs / "text_vectors", {"of": "texts"}, vectors)
    assert gone(outputs) == {written, loose, read}
    run(outputs / "train" / "one", stage(outputs, "table"), read)
    assert gone(outputs) == {loose}


@pytest.mark.parametrize("kind", ["data", "field_embeddings"])
@pytest.mark.parametrize("finished", [True, False])
def test_what_a_run_reads_stays_wherever_the_run_is(kind: str, finished: bool, outputs: Path, tmp_path: Path) -> None:
    one, two, three, free = (stage(outputs, name, kind) for name in ("one", "two", "three", "free"))
    run(outputs / "train" / "below", one, finished=finished)
    run(tmp_path / "elsewhere", two, finished=finished)
    run(tmp_path / "sweep" / "0_x", three, finished=finished)
    assert gone(outputs) == {free}
    shutil.move(tmp_path / "elsewhere", outputs / "moved")
    assert gone(outputs) == {free}
    shutil.move(tmp_path / "sweep", tmp_path / "sweep2")  # of which nobody could know
    assert gone(outputs) == {free, three}
    assert gone(outputs, str(tmp_path / "sweep2")) == {free}
    shutil.rmtree(outputs / "moved")
    assert gone(outputs) == {free, two, three}


@pytest.mark.parametrize("place", ["outputs/train/r", "elsewhere/r"])
def test_what_a_run_moved_aside_read_stays(place: str, outputs: Path, tmp_path: Path) -> None:
    one, two = stage(outputs, "one"), stage(outputs, "two")
    run(tmp_path / place, one)
    run(tmp_path / place, two, seed=2)
    assert (tmp_path / place / "earlier-1").is_dir()
    assert gone(outputs) == set()
    shutil.rmtree(tmp_path / place / "earlier-1")
    assert gone(outputs) == {one}


def test_a_run_that_does_not_say_yet_what_it_reads_keeps_what_it_read(outputs: Path, tmp_path: Path) -> None:
    one = stage(outputs, "one")
    run(tmp_path / "r", one, finished=False)
    (tmp_path / "r" / RECORD).write_bytes(b"\0" * 40)  # as a power failure leaves it
    assert gone(outputs) == set()
    (tmp_path / "r" / RECORD).unlink()
    assert gone(outputs) == set()


def test_runs_behind_a_link_are_found_and_a_circle_ends(outputs: Path, tmp_path: Path) -> None:
    one = stage(outputs, "one")
    run(tmp_path / "big_disk" / "r", one)
    (one / "runs.txt").unlink()  # as of an earlier version
    assert gone(outputs) == {one}
    (outputs / "train").symlink_to(tmp_path / "big_disk")
    (tmp_path / "big_disk" / "back").symlink_to(outputs)
    assert gone(outputs) == set()


def test_tables_of_earlier_versions_go_unless_a_run_reads_them(outputs: Path) -> None:
    for name in ("old", "read"):
        folder = outputs / "data" / digest({"of": name})[:16]
        write_json(folder / KEY_FILE, {"of": name})
    write_json(outputs / "train/r/config.json", {})
    write_json(outputs / "train/r/result.json", {"data_digest": folder.name})
    ((path, reason),) = unused(outputs, None)
    assert path.name == digest({"of": "old"})[:16]
    assert "earlier version" in reason


def shards_of(outputs: Path, raw: Path, name: str, **changes: Any) -> Path:
    key = {"format": shards.FORMAT, "version": VERSION, "stamps": stamps([raw]), "files": []} | changes
    folder = outputs / "data" / f".{name}.shards"
    write_json(folder / KEY_FILE, {key: value for key, value in key.items() if value is not None})
    write_json(folder / "000000000000" / SHARD_FILE, {})
    return folder


def test_shards_stay_if_a_next_call_would_go_on_from_them(outputs: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw.csv"
    raw.write_text("a")
    shards_of(outputs, raw, "goes_on")
    stale = {
        shards_of(outputs, raw, "other_format", format=shards.FORMAT - 1),
        shards_of(outputs, raw, "other_version", version=VERSION - 1),
        shards_of(outputs, raw, "changed", stamps={str(raw): "1 2 3 4"}),
        shards_of(outputs, raw, "no_file", stamps={str(tmp_path / "gone.csv"): "1 2 3 4"}),
        shards_of(outputs, raw, "no_stamps", stamps=None),
        shards_of(outputs, raw, "strange", stamps=[1]),
        shards_of(outputs, raw, "damaged"),
        shards_of(outputs, raw, "no_key"),
        shards_of(outputs, raw, table := stage(outputs, "done").name),
    }
    run(outputs / "r", outputs / "data" / table)
    (outputs / "data/.damaged.shards" / KEY_FILE).write_bytes(b'{"format"\xff')
    (outputs / "data/.no_key.shards" / KEY_FILE).unlink()
    assert gone(outputs) == stale
    raw.write_text("b")
    assert gone(outputs) == stale | {outputs / "data/.goes_on.shards"}


def listing(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def call(outputs: Path, *, dry_run: bool = False, runs: str | None = None) -> None:
    clean.main({"data_root": "", "outputs": str(outputs), "runs": runs, "dry_run": dry_run})


def test_it_removes_what_it_names_and_nothing_else(
    outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, free, vectors = stage(outputs, "kept"), stage(outputs, "free"), stage(outputs, "v", "field_embeddings")
    stage(outputs, "choice", "machine")
    stage(outputs, "numbers", "baseline")
    run(outputs / "train" / "r", kept)
    for name in ("notes.txt", "data/mine/x.csv", "data/.mine/x.csv", "train/r/notes.txt", "data/0123456789abcdefg/x"):
        (outputs / name).parent.mkdir(exist_ok=True)
        (outputs / name).write_text("the user's")
    killed, live = outputs / "data/.0123.killed.tmp", outputs / "data/.0123.live.tmp"
    for folder in (killed, live):
        folder.mkdir()
    release = lock(live)
    before = listing(outputs)
    call(outputs, dry_run=True)
    dry = capsys.readouterr().out
    assert listing(outputs) == before
    assert "nothing was removed: dry_run" in dry
    call(outputs)
    said = capsys.readouterr().out
    going = [free, vectors, killed]
    names = {path.relative_to(outputs).as_posix() for path in going}
    assert before - listing(outputs) == {name for name in before if any(name.startswith(own) for own in names)}
    assert listing(outputs) <= before
    for folder in going:
        assert f"{folder}  " in said
        assert f"{folder}  " in dry
    assert str(kept) not in said
    assert str(live) not in said
    assert "removed 3 folders, " in said
    assert "1 more is in use by another process" in said
    release()
    call(outputs)
    assert "removed 1 folder, 0.0 MB" in capsys.readouterr().out
    call(outputs)
    assert capsys.readouterr().out == f"nothing to remove: all below {outputs} is referred to\n"


def test_what_cannot_be_removed_is_an_error_of_the_system(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = stage(outputs, "free")

    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PermissionError, match=free.name):
        call(outputs)
    assert free.exists()


def test_a_kill_in_the_middle_leaves_no_half_table(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = stage(outputs, "free")
    monkeypatch.setattr("fieldctr.locks.remove", lambda paths: None)  # killed before it removed any file
    call(outputs)
    assert not free.exists()
    assert stage(outputs, "free") == free
    run(outputs / "r", free)
    monkeypatch.undo()
    assert [path.name for path in gone(outputs)] == [f".{free.name}.{os.getpid()}.tmp"]
    call(outputs)
    assert [path.name for path in (outputs / "data").iterdir()] == [free.name]


def test_no_outputs_is_said(outputs: Path) -> None:
    with pytest.raises(UserError, match=r"outputs=.*no such folder"):
        call(outputs)
    outputs.mkdir()
    call(outputs)
    with pytest.raises(UserError, match=r"runs=nowhere.*no run folder there"):
        call(outputs, runs="nowhere")


def test_a_run_never_goes_whatever_its_files_are(outputs: Path) -> None:
    """Not even one that lies where tables lie, under a name like theirs."""
    place = run(outputs / "data" / "0123456789abcdef", stage(outputs, "one"))
    (place / "config.json").write_bytes(b"")
    assert (place / CHECKSUMS_FILE).exists()
    assert gone(outputs) == set()
    assert json.loads((place / "result.json").read_text())
