"""Content-addressed folders: whole or absent."""

import threading
from pathlib import Path

import pytest

from fieldctr.artifacts import KEY_FILE, cached, check_stage, digest, file_digest
from fieldctr.disk import write_json
from fieldctr.errors import UserError


def test_digest_ignores_key_order_and_sees_every_value() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"min_count": 12}) != digest({"min_count": 21})  # FuxiCTR's hash of sorted characters fails this
    assert digest({"a": 1}) != digest({"a": 1.5}) != digest({"a": "1"})


def test_a_second_call_builds_nothing(tmp_path: Path) -> None:
    calls = []

    def build(folder: Path) -> None:
        calls.append(folder)
        (folder / "x").write_text("1")

    first, second = cached(tmp_path, {"k": 1}, build), cached(tmp_path, {"k": 1}, build)
    assert first == second
    assert len(calls) == 1
    assert (first / KEY_FILE).exists()
    assert cached(tmp_path, {"k": 2}, build) != first


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "half").write_text("1")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        cached(tmp_path, {"k": 1}, build)
    assert list(tmp_path.iterdir()) == []


def test_two_that_race_get_one_whole_result(tmp_path: Path) -> None:
    together = threading.Barrier(2)
    folders = []

    def build(folder: Path) -> None:
        together.wait()
        (folder / "x").write_text("same")

    threads = [threading.Thread(target=lambda: folders.append(cached(tmp_path, {"k": 1}, build))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert folders[0] == folders[1]
    assert [path.name for path in tmp_path.iterdir()] == [folders[0].name]
    assert (folders[0] / "x").read_text() == "same"


def test_a_folder_without_key_is_refused_not_used(tmp_path: Path) -> None:
    folder = cached(tmp_path, {"k": 1}, lambda folder: (folder / "x").touch())
    (folder / KEY_FILE).unlink()
    with pytest.raises(UserError, match=r"key.json is missing. Remove .* made anew"):
        check_stage(cached(tmp_path, {"k": 1}, lambda folder: (folder / "x").touch()))


def test_write_json_replaces_whole_files_and_refuses_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert '"x": 1' in (tmp_path / "a.json").read_text()
    assert file_digest(tmp_path / "a.json") == file_digest(tmp_path / "a.json")
