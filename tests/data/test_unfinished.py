"""What other calls, other processes and other hands do while a table is prepared: it is right, or refused."""

import errno
import fcntl
import hashlib
import itertools
import os
import random
import shutil
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tables import small, tidy_node

from fieldctr import disk, locks, raw_files
from fieldctr.checksums import keep
from fieldctr.data import dataset, encode, prepare, shards
from fieldctr.data.fields.specs import field_specs
from fieldctr.data.shards import writer
from fieldctr.data.table import EVENTS, SPLITS, Table
from fieldctr.errors import UserError
from fieldctr.locks import LOCKED, lock

CHUNK = 1 << 6  # in place of 1 << 16: three shards
prepared = partial(prepare.prepared, limits=small(CHUNK))
ALL_MOMENTS = os.environ.get("ALL_MOMENTS") == "1"
FILES = ("one.csv", "two.csv", "users.csv")
KNOWN: dict[tuple[bytes, ...], tuple[str, dict[str, str]]] = {}  # what `expected` has found


def raw(folder: Path, *, seed: int = 0) -> Path:
    """Samples in two files, and a side table."""
    draw = random.Random(seed)
    folder.mkdir()
    for name in FILES[:2]:
        rows = (f"{draw.random() < 0.4:d},u{draw.randrange(9)},a{draw.randrange(9)}\n" for _ in range(70))
        (folder / name).write_text("y,user,ad\n" + "".join(rows))
    (folder / "users.csv").write_text("user,city\n" + "".join(f"u{i},c{draw.randrange(4)}\n" for i in range(9)))
    return folder


def node(folder: Path, **changes: Any) -> dict[str, Any]:
    source = {"label": {"column": "y"}, "joins": {"users": {"files": "users.csv", "on": "user"}}}
    fields = {"user": {}, "ad": {}, "city": {}}
    return tidy_node(folder, "[ot]*.csv", fields, **source) | {"group": "user"} | changes


def bytes_of(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def expected(folder: Path, out: Path) -> tuple[str, dict[str, str]]:
    """Name and bytes of the table of what lies in `folder`, prepared from a copy that nobody touches."""
    content = tuple((folder / name).read_bytes() for name in FILES)
    if content not in KNOWN:
        copy = shutil.copytree(folder, out / "copy")
        made = prepared(node(copy), data_dir=out / "expected").folder
        shutil.rmtree(copy)
        KNOWN[content] = made.name, bytes_of(made)
    return KNOWN[content]


def stopped(described: dict[str, Any], out: Path, *, code: int = errno.ENOSPC) -> list[Path]:
    """The shards that lie there when the work ends between the passes, as a full disk would end it."""

    def full(*arguments: object) -> None:
        raise OSError(code, os.strerror(code), str(out))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "fit", full)
        with pytest.raises(OSError, match=r"."):
            prepared(described, data_dir=out)
    return [shard for folder in out.glob(".*.shards") for shard in shards.finished(folder)]


def hidden(out: Path) -> list[str]:
    """What a finished call must not leave."""
    return [path.name for path in out.rglob("*") if path.name.startswith(".") and path.name != ".digests.json"]


def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(disk, "_told", set())


@pytest.mark.parametrize("system", ["locks", "no locks"])
@pytest.mark.parametrize("first", [0, 1])
def test_shards_of_another_version_stay_while_a_process_has_them(
    system: str, first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if system == "no locks":
        no_locks(monkeypatch)
    versions = [raw(tmp_path / f"v{seed}", seed=seed) for seed in (first, 1 - first)]
    out = tmp_path / "out"
    theirs = stopped(node(versions[0]), out)
    assert len(theirs) == 3
    before = {path: path.read_bytes() for shard in theirs for path in shard.iterdir()}
    release = lock(theirs[0].parent)  # as their process would
    mine = prepared(node(versions[1]), data_dir=out)
    assert {path: path.read_bytes() for shard in theirs for path in shard.iterdir()} == before
    assert "starts anew" not in capsys.readouterr().err
    assert (mine.folder.name, bytes_of(mine.folder)) == expected(versions[1], tmp_path / "1")
    release()
    shutil.rmtree(mine.folder)
    prepared(node(versions[1]), data_dir=out)
    assert not theirs[0].parent.exists()
    said = capsys.readouterr().err
    assert said.count("changed since an earlier call was stopped: it starts anew") == 1
    assert said.count("has no locks") <= 1
    assert hidden(out) == []


def test_other_tables_of_the_same_files_are_let_alone(tmp_path: Path) -> None:
    folder = raw(tmp_path / "raw")
    kept = stopped(node(folder, min_count=2), tmp_path / "out")
    prepared(node(folder), data_dir=tmp_path / "out")
    assert kept
    assert all(shard.exists() for shard in kept)


def test_shards_of_files_that_have_other_stamps_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bytes came and went: the name is the same, and yet the shards may be of what was there in between."""
    folder, out = raw(tmp_path / "raw"), tmp_path / "out"
    name, whole = expected(folder, tmp_path / "1")
    done = stopped(node(folder), out)
    shutil.copytree(done[1], tmp_path / "other")
    other = prepared_shard_of_other_rows(tmp_path, done[1].name)
    shutil.rmtree(done[1])
    shutil.copytree(other, done[1])
    os.utime(folder / "two.csv")
    made = prepared(node(folder), data_dir=out).folder
    assert (made.name, bytes_of(made)) == (name, whole)
    said = capsys.readouterr().err
    assert "may have changed since an earlier call was stopped: it starts anew" in said
    assert "goes on" not in said


def prepared_shard_of_other_rows(place: Path, name: str) -> Path:
    done = stopped(node(raw(place / "strange", seed=9)), place / "strange_out")
    return next(shard for shard in done if shard.name == name)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_shard_is_said_and_read_again(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = raw(tmp_path / "raw"), tmp_path / "out"
    name, whole = expected(folder, tmp_path / "1")
    shard = stopped(node(folder), out)[1]
    shutil.copytree(out, tmp_path / "stopped")
    files = sorted(path.name for path in shard.iterdir())
    assert len(files) > 8
    for file in files:
        shutil.rmtree(out)
        shutil.copytree(tmp_path / "stopped", out)
        data = bytearray((shard / file).read_bytes())
        (shard / file).unlink()
        if damage == "flipped":
            data[len(data) // 2] ^= 4
        if damage != "gone":
            (shard / file).write_bytes(data[: len(data) // 2] if damage == "cut" else data)
        capsys.readouterr()
        made = prepared(node(folder), data_dir=out).folder
        said = capsys.readouterr().err
        assert (made.name, bytes_of(made)) == (name, whole), file
        assert f"{shard.name}/{file}" in said, file
        assert "Its rows are read again" in said
        assert "goes on behind the 76 rows" in said
        assert hidden(out) == []


@pytest.mark.parametrize("which", [0, 1, -1])
def test_a_shard_that_vanishes_is_missed(which: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, out = raw(tmp_path / "raw"), tmp_path / "out"

    def lost(*arguments: Any, real: Any = encode._pass_one, **named: Any) -> Any:
        found = real(*arguments, **named)
        shutil.rmtree(shards.finished(next(out.glob(".*.shards")))[which])
        return found

    with monkeypatch.context() as patch:
        patch.setattr(encode, "_pass_one", lost)
        with pytest.raises(UserError, match=r"(64|12) rows from row (0|64|128) on are missing.*Call again"):
            prepared(node(folder), data_dir=out)
    assert [path.name for path in out.iterdir() if path.is_dir()] == []
    made = prepared(node(folder), data_dir=out).folder
    assert (made.name, bytes_of(made)) == expected(folder, tmp_path / "1")


@pytest.mark.parametrize("split", ["train", "test"])
def test_rows_that_pass_two_loses_are_missed(split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, out = raw(tmp_path / "raw"), tmp_path / "out"

    def lossy(self: Any, name: str, real: Any = shards.Shards.blocks) -> Any:
        yield from itertools.islice(real(self, name), 1 if name == split else None)

    with monkeypatch.context() as patch:
        patch.setattr(shards.Shards, "blocks", lossy)
        with pytest.raises(UserError, match=rf"{split}\.\w+\.npy has \d+ rows, and \d+ were counted"):
            prepared(node(folder, group=None), data_dir=out)
    assert [path.name for path in out.iterdir() if path.is_dir()] == []


@pytest.mark.parametrize("lost", ["train.codes", "events.codes", "events.numbers"])
def test_a_file_of_a_shard_that_vanishes_is_missed(lost: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"user": i % 9, "item": i % 5, "when": i, "label": i // 4 % 2, "split": (*SPLITS, EVENTS)[i % 4]}
        for i in range(140)
    ]
    history = {"kind": "history", "of": "item", "by": "user", "time": "when", "max_length": 3}
    specs = field_specs({"user": {}, "item": {}, "past": history}, 1)

    def losing(*arguments: Any, real: Any = encode.fit) -> Any:
        (shards.finished(tmp_path / "shards")[1] / lost).unlink()
        return real(*arguments)

    monkeypatch.setattr(encode, "fit", losing)
    with pytest.raises(FileNotFoundError, match=lost):
        encode.encode(Table.named(pl.LazyFrame(rows)), specs, tmp_path, group=None, limits=small(CHUNK))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_an_error_of_the_disk_keeps_whole_shards_and_nothing_else(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = raw(tmp_path / "raw"), tmp_path / "out"
    for whole in range(3):
        count = itertools.count()

        def fails(
            shard: Path, *given: Any, real: Any = writer.complete, whole: int = whole, count: Any = count, **named: Any
        ) -> None:
            if next(count) == whole:
                raise OSError(code, os.strerror(code), str(shard / "words.arrow"))
            real(shard, *given, **named)

        with monkeypatch.context() as patch:
            patch.setattr(writer, "complete", fails)
            with pytest.raises(OSError, match="words"):
                prepared(node(folder), data_dir=out)
        own = list(out.glob(".*.shards"))
        assert [len(shards.finished(place)) for place in own] == ([whole] if whole else [])
        assert sorted(path.name for place in own for path in place.iterdir()) == (
            [f"{CHUNK * i:012}" for i in range(whole)] + ["key.json"] if whole else []
        )
        assert [path for path in out.iterdir() if path.is_dir()] == own
        for place in own:
            shutil.rmtree(place)


def rewrite(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"u1", b"u2").replace(b"c1", b"c2"))


def rewrite_in_secret(path: Path) -> None:
    stat = path.stat()
    rewrite(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def append(path: Path) -> None:
    last = path.read_bytes().splitlines(keepends=True)[-1]
    path.write_bytes(path.read_bytes() + last.replace(b"u8", b"u99"))


def truncate(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-3]))


def other_header(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"user,ad", b"ad,user").replace(b"user,city", b"user,town"))


def move_over(path: Path) -> None:
    copy = Path(shutil.copy(path, path.parent.parent / "coming"))
    rewrite(copy)
    copy.rename(path)


def link_over(path: Path) -> None:
    copy = Path(shutil.copy(path, path.parent.parent / "linked"))
    rewrite(copy)
    path.unlink()
    path.hardlink_to(copy)
    copy.unlink()


CHANGES: list[Callable[[Path], object]] = [
    rewrite, rewrite_in_secret, append, truncate, other_header, move_over, link_over,
    os.utime, Path.touch, lambda path: path.chmod(0o600), lambda path: path.unlink(),
]  # fmt: skip
MOMENTS = [
    (prepare, "_table"), (prepare, "stamps"), (raw_files, "file_digest"), (prepare, "digests"),
    (encode, "refuse_bad_lines"), (shards._Writer, "add"), (encode, "write_shards"), (encode, "fit"),
    (encode, "write_json"), (prepare, "refused_if_changed"), (prepare, "cached"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment[1])
def test_a_file_that_changes_meanwhile_is_refused_or_read_rightly(
    moment: tuple[Any, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No table ever has the name of one content and the rows of another; the next call is right."""
    pristine, right, refused = raw(tmp_path / "pristine"), {}, 0
    first = MOMENTS.index(moment)
    turns = len(CHANGES) if ALL_MOMENTS else 2
    for i in range(first, first + 3 * turns, 3):  # each change has its turn at four moments, or at all
        change = CHANGES[i % len(CHANGES)]
        (tmp_path / f"{i}").mkdir()
        folder, out = shutil.copytree(pristine, tmp_path / f"{i}" / "raw"), tmp_path / f"{i}" / "out"
        file = folder / FILES[(i // 3 + first) % len(FILES)]
        name, whole = expected(folder, tmp_path / f"{i}")
        right[name] = whole
        with monkeypatch.context() as patch:
            patch.setattr(*moment, once_after(getattr(*moment), lambda change=change, file=file: change(file)))
            try:
                prepared(node(folder), data_dir=out)
            except (UserError, FileNotFoundError):
                refused += 1
        if file.exists() and b"town" not in file.read_bytes():
            now = expected(folder, tmp_path / f"{i}")
            right[now[0]] = now[1]
            made = prepared(node(folder), data_dir=out).folder
            assert (made.name, bytes_of(made)) == now, (change, file.name)
        for made in out.glob("[!.]*") if out.exists() else ():
            assert bytes_of(made) == right[made.name], (change, file.name)
        assert hidden(out) == [], (change, file.name)
    assert refused or moment[1] in ("cached", "_table")


def once_after(real: Callable[..., Any], action: Callable[[], object]) -> Callable[..., Any]:
    done = []

    def call(*arguments: Any, **named: Any) -> Any:
        found = real(*arguments, **named)
        if not done:
            done.append(True)
            action()
        return found

    return call


def test_the_memo_knows_a_file_by_more_than_size_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_files, "SETTLED_NS", -(10**12))  # as if all had been written long ago
    folder, out = raw(tmp_path / "raw"), tmp_path / "out"
    names = {prepared(node(folder), data_dir=out).folder.name}
    read = []
    monkeypatch.setattr(
        raw_files, "file_digest", lambda *given, real=raw_files.file_digest: read.append(given) or real(*given)
    )
    assert prepared(node(folder), data_dir=out).folder.name in names
    assert read == []
    for change in (rewrite_in_secret, move_over, link_over):
        path = folder / "one.csv"
        before = path.stat()
        change(path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert path.stat().st_size == before.st_size
        made = prepared(node(folder), data_dir=out).folder
        assert (made.name, bytes_of(made)) == expected(folder, tmp_path / change.__name__)
        shutil.copy(tmp_path / "raw/one.csv", tmp_path / "last")
        (folder / "one.csv").write_bytes((tmp_path / "last").read_bytes().replace(b"u2", b"u1"))
        names.add(made.name)
    assert len(names) > 1


MEMOS: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-9]), "damaged"),
    "flipped": (lambda path: path.write_bytes(path.read_bytes().replace(b'"content"', b'"cpntent"')), "damaged"),
    "another digest": (lambda path: path.write_bytes(path.read_bytes().replace(b"a", b"b", 5)), "damaged"),
    "empty": (lambda path: path.write_bytes(b""), "damaged"),
    "no text": (lambda path: path.write_bytes(b"\xff\xfe\x00"), "damaged"),
    "of an earlier version": (lambda path: path.write_text('{"/a 1 2": "ab"}'), "earlier version"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "it is a folder"),
    "a link to nothing": (lambda path: (path.unlink(), path.symlink_to("nowhere")), ""),
}


@pytest.mark.parametrize("kind", MEMOS)
def test_a_memo_that_is_not_one_is_made_anew(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(raw_files, "SETTLED_NS", -(10**12))
    folder, memo = raw(tmp_path / "raw"), tmp_path / ".digests.json"
    files = tuple(folder / name for name in FILES)
    found, (harm, word) = raw_files.digests(files, memo), MEMOS[kind]
    whole = memo.read_bytes()
    harm(memo)
    capsys.readouterr()
    assert raw_files.digests(files, memo) == found
    said = capsys.readouterr().err
    assert word in said
    assert bool(said) == bool(word)
    assert kind == "a folder" or memo.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []


def test_a_memo_that_may_not_be_read_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(raw_files, "SETTLED_NS", -(10**12))
    files, memo = (raw(tmp_path / "raw") / "one.csv",), tmp_path / ".digests.json"
    found = raw_files.digests(files, memo)

    def refuse(self: Path, *given: Any, real: Any = Path.read_bytes) -> bytes:
        if self == memo:
            raise PermissionError(errno.EACCES, "Permission denied", str(memo))
        return real(self, *given)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert raw_files.digests(files, memo) == found
    assert f"made anew: {memo}: no permission" in capsys.readouterr().err


def test_two_that_write_one_memo_leave_a_whole_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    memo, together = tmp_path / ".digests.json", threading.Barrier(4)

    def write(i: int) -> None:
        for n in range(25):
            together.wait()
            keep(memo, {f"{i}": "x" * (i * 1000 + n)})

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert raw_files.kept(memo)
    assert [path.name for path in tmp_path.iterdir()] == [memo.name]
    assert capsys.readouterr().err == ""


def test_matrices_of_other_lengths_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "train.ids.npy", np.zeros((3, 2)))
    dataset.refuse_other_rows(tmp_path, "train", 3)
    np.save(tmp_path / "train.label.npy", np.zeros(2))
    with pytest.raises(UserError, match=r"train\.label\.npy has 2 rows, and 3 were counted"):
        dataset.refuse_other_rows(tmp_path, "train", 3)


def test_a_lock_file_is_no_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process's lock file on a file system without locks does not stop the next one."""
    no_locks(monkeypatch)
    folder, out = raw(tmp_path / "raw"), tmp_path / "out"
    place = stopped(node(folder), out)[0].parent
    (out / f".{place.name}{LOCKED}").write_text(f'{{"host": "{locks.socket.gethostname()}", "pid": 1, "began": "no"}}')
    made = prepared(node(folder), data_dir=out).folder
    assert (made.name, bytes_of(made)) == expected(folder, tmp_path / "1")
    assert hidden(out) == []
