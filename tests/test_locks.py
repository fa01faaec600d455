"""A folder is one process's alone, with the system's locks and without."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fieldctr import disk, locks
from fieldctr.locks import LOCKED, HeldError, lock, remove_unowned


@pytest.fixture(params=[True, False], ids=["locks", "no locks"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A file system with locks, and one without."""

    def refuse(handle: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    if not request.param:
        monkeypatch.setattr(fcntl, "flock", refuse)
        monkeypatch.setattr(disk, "_told", set())
    return request.param


def test_one_has_it_until_it_lets_go(tmp_path: Path, system: bool, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "a" / "b"
    release = lock(folder)
    assert folder.is_dir()
    with pytest.raises(HeldError, match="process"):
        lock(folder)
    release()
    lock(folder)()
    assert list(folder.parent.iterdir()) == [folder]
    said = capsys.readouterr().err
    assert said.count("has no locks") == (0 if system else 1)


def test_who_waits_gets_it_and_says_so_once(tmp_path: Path, system: bool) -> None:
    release, said = lock(tmp_path / "a"), []

    def waiting(who: str) -> None:
        said.append(who)
        threading.Timer(0.5, release).start()

    lock(tmp_path / "a", waiting=waiting)()
    assert len(said) == 1


def test_a_folder_that_was_removed_meanwhile_is_made_again(tmp_path: Path, system: bool) -> None:
    release = lock(tmp_path / "a")

    def waiting(who: str) -> None:
        (tmp_path / "a").rmdir()
        release()

    again = lock(tmp_path / "a", waiting=waiting)
    assert (tmp_path / "a").is_dir()
    with pytest.raises(HeldError):
        lock(tmp_path / "a")
    again()


def test_what_a_process_has_is_not_removed(tmp_path: Path, system: bool) -> None:
    for name in "ab":
        (tmp_path / name / "inside").mkdir(parents=True)
    release = lock(tmp_path / "a")
    assert remove_unowned([tmp_path / "a", tmp_path / "b"]) == [tmp_path / "b"]
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == ["a"]
    release()


def ended() -> int:
    """The number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("holder", "held"),
    [
        (lambda: {"host": locks.socket.gethostname(), "pid": ended(), "began": "1"}, False),
        (lambda: {"host": locks.socket.gethostname(), "pid": os.getpid(), "began": "another process's"}, False),
        (lambda: {"host": locks.socket.gethostname(), "pid": 1, "began": locks._began(1)}, True),
        (lambda: {"host": "elsewhere", "pid": ended(), "began": "1"}, True),
    ],
    ids=["ended", "its number was given again", "lives", "on another machine"],
)
def test_a_lock_file_counts_while_its_process_may_live(
    holder: Callable[[], dict[str, object]], held: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda handle, kind: (_ for _ in ()).throw(OSError(errno.ENOTSUP, "no")))
    (tmp_path / f".a{LOCKED}").write_text(json.dumps(holder()))
    if held:
        with pytest.raises(HeldError, match="process"):
            lock(tmp_path / "a")
    else:
        lock(tmp_path / "a")()
        assert [path.name for path in tmp_path.iterdir()] == ["a"]
