"""Whatever happens to a file of a sealed folder, it is named, and nothing of it is used."""

import json
import random
from pathlib import Path

import pytest

from fieldctr.checksums import CHECKSUMS_FILE, check, checksum, keep, kept, of_text, seal
from fieldctr.errors import UserError

CONTENTS = {"a.json": b'{"x": 1}', "b/c.npy": bytes(range(256)) * 5000, "empty": b""}


def damaged(path: Path, draw: random.Random) -> str:
    """Do something to a file; says what."""
    data = bytearray(path.read_bytes())
    kinds = ["gone", "longer", "folder"] + (["cut", "flipped", "zeroed", "emptied"] if any(data) else [])
    kind = draw.choice(kinds)
    place = draw.choice([i for i, byte in enumerate(data) if byte] or [0])
    path.unlink()
    if kind == "flipped":
        data[place] ^= 1 << draw.randrange(8)
    elif kind == "zeroed":
        data[place : place + 4096] = bytes(len(data[place : place + 4096]))
    elif kind == "cut":
        data = data[:place]
    elif kind == "emptied":
        data.clear()
    elif kind == "longer":
        data += b"\n"
    elif kind == "folder":
        path.mkdir()
    if kind not in ("gone", "folder"):
        path.write_bytes(data)
    return kind


@pytest.mark.parametrize("name", [*CONTENTS, CHECKSUMS_FILE])
@pytest.mark.parametrize("seed", range(6))
def test_any_damage_is_named_with_its_cure(name: str, seed: int, tmp_path: Path) -> None:
    for file, data in CONTENTS.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(data)
    seal(tmp_path)
    check(tmp_path, cure="C")
    kind = damaged(tmp_path / name, random.Random(f"{name} {seed}"))
    if (tmp_path / CHECKSUMS_FILE).is_dir() or (kind == "longer" and name == CHECKSUMS_FILE):
        return  # a blank line more in a JSON file says the same
    with pytest.raises(UserError, match=r" C$") as caught:
        check(tmp_path, cure="C")
    if name != CHECKSUMS_FILE:
        assert str(tmp_path / name) in str(caught.value), kind


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name)
    seal(tmp_path)
    (tmp_path / "b").write_text("c")
    check(tmp_path, ["a"], cure="")
    check(tmp_path, ["a"], sizes=["b"], cure="")
    (tmp_path / "b").write_text("longer")
    with pytest.raises(UserError, match="6 bytes, 1 were written"):
        check(tmp_path, ["a"], sizes=["b"], cure="")
    with pytest.raises(UserError, match="c is not in"):
        check(tmp_path, ["c"], cure="")


def test_what_comes_last_is_sealed_before_it_is_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    seal(tmp_path, ["a"], coming={"last": "é\n"})
    with pytest.raises(UserError, match="last is missing"):
        check(tmp_path, cure="")
    (tmp_path / "last").write_text("é\n", encoding="utf-8")
    check(tmp_path, cure="")
    assert checksum(tmp_path / "last") == of_text("é\n")


@pytest.mark.parametrize("seed", range(12))
def test_a_note_is_given_back_or_not_used(seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, value = tmp_path / "note.json", {"ä": [1, 2.5, None], "digest": "ab" * 32}
    assert kept(path) is None
    keep(path, value)
    assert kept(path) == value
    assert capsys.readouterr().err == ""
    if damaged(path, random.Random(seed)) not in ("gone", "folder"):
        assert kept(path) is None
        assert f"{path} is damaged" in capsys.readouterr().err


def test_a_note_of_an_earlier_version_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "note.json").write_text(json.dumps({"path size time": "digest"}))
    assert kept(tmp_path / "note.json") is None
