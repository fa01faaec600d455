"""What the disk says names the file, whichever library passes it on; files are whole or absent."""

import errno
import fcntl
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from fieldctr import disk
from fieldctr.data.npy import NpyWriter, save_alone
from fieldctr.disk import TEMPORARY, blamed, remove, replacing, sentence, write_json, write_text
from fieldctr.errors import UserError

LIMIT = 1 << 16
NUMBERS = np.random.default_rng(0).random(4 * LIMIT)


def by_npy_writer(path: Path) -> None:
    with NpyWriter(path, dtype=np.float64) as file:
        for part in np.array_split(NUMBERS, 8):
            file.append(part)


WRITERS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: write_text(path, "x" * 4 * LIMIT),
    "json": lambda path: write_json(path, NUMBERS.tolist()),
    "npy": lambda path: save_alone(path, NUMBERS),
    "rows of npy": by_npy_writer,
    "csv of polars": lambda path: pl.LazyFrame({"a": NUMBERS}).sink_csv(path),
    "parquet of polars": lambda path: pl.LazyFrame({"a": NUMBERS}).sink_parquet(path),
    "arrow of polars": lambda path: pl.DataFrame({"a": NUMBERS}).write_ipc(path),
    "safetensors": lambda path: save_file({"a": torch.from_numpy(NUMBERS)}, path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_grows_too_large_is_named_with_the_cause(name: str, tmp_path: Path) -> None:
    """The limit of a file's size is the full disk that every machine can have."""
    path, (soft, hard) = tmp_path / "some file", resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, hard))
    try:
        with pytest.raises(OSError, match=str(path)) as caught, blamed(path):
            WRITERS[name](path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert caught.value.errno == errno.EFBIG
    assert "would be larger than the system allows" in sentence(caught.value)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")

    def half(path: Path) -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half(tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = []
    fsync, replace = os.fsync, Path.replace

    def noted(handle: int) -> None:
        events.append(Path(f"/proc/self/fd/{handle}").readlink())
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Path, "replace", lambda self, to: (events.append("rename"), replace(self, to)))
    write_text(tmp_path / "a", "new")
    file, rename, folder = events
    assert file.parent == tmp_path
    assert file.name.endswith(TEMPORARY)
    assert (rename, folder) == ("rename", tmp_path)


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom fieldctr.disk import replacing\n"
        "with replacing(Path(sys.argv[1])) as temporary:\n    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "a[1]*"  # no pattern
    subprocess.run([sys.executable, "-c", program, str(path)])
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(TEMPORARY)
    with replacing(path) as own:
        assert not left.exists()
        with replacing(path) as other:
            assert own.exists()
            other.write_text("first")
        own.write_text("second")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["second"]


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (lambda folder: folder / "file" / "a", "no folder"),
        (lambda folder: folder / ("x" * 300), "too long"),
        (lambda folder: folder / "folder", "it is a folder"),
    ],
)
def test_a_place_that_cannot_be_is_a_sentence(make: Callable[[Path], Path], cause: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder/inside").mkdir(parents=True)
    path = make(tmp_path)
    with pytest.raises(OSError, match=path.name[:9]) as caught:
        write_text(path, "x")
    assert cause in sentence(caught.value)
    assert not list(tmp_path.glob(f"**/*{TEMPORARY}"))


@pytest.mark.parametrize("made", [Path.touch, Path.mkdir])
def test_what_cannot_be_removed_is_said_and_the_rest_goes(
    made: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stuck, other, gone = (tmp_path / name for name in ("stuck", "other", "gone"))
    made(stuck)
    made(other)
    call = "unlink" if made is Path.touch else "rmdir"
    real = getattr(os, call)

    def refuse(path: str | Path, **named: object) -> None:
        if Path(path).name == "stuck":
            raise OSError(errno.EBUSY, "Device or resource busy", path)
        real(path, **named)

    monkeypatch.setattr(os, call, refuse)
    remove([stuck, other, gone])
    assert list(tmp_path.iterdir()) == [stuck]
    assert capsys.readouterr().err == (
        f"fieldctr: {stuck} is of no use any more and cannot be removed: Device or resource busy\n"
    )


def test_a_file_system_without_locks_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(handle: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(disk, "_told", set())
    for name in "aba":
        write_text(tmp_path / name, name)
    assert capsys.readouterr().err.count(f"the file system of {tmp_path} has no locks: ") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_message_for_the_user_is_left_as_it_is() -> None:
    with pytest.raises(UserError, match=r"^kept \(os error 28\)$"), blamed(Path("a")):
        raise UserError("kept (os error 28)")
