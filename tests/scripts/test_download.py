"""scripts/download_reczoo.sh against a hub in a folder: whole, cut, altered, misspelt."""

import hashlib
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "download_reczoo.sh"
FILES = {"train.csv": b"label,user\n1,2\n", "test.csv": b"label,user\n0,3\n"}

pytestmark = pytest.mark.skipif(not shutil.which("curl"), reason="no curl here")


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A checkout with the script and one data set, and its archive on the hub."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(SCRIPT, tmp_path / "scripts")
    (tmp_path / "conf/dataset").mkdir(parents=True)
    sums = "".join(f"    {name}: {hashlib.md5(text).hexdigest()}\n" for name, text in FILES.items())
    node = f"raw_dir: ${{data_root}}/reczoo/Tiny_x1\npublished:\n  md5:\n{sums}  rows: {{train: 1, test: 1}}\n"
    (tmp_path / "conf/dataset/tiny_x1.yaml").write_text(node)
    archive = tmp_path / "hub/Tiny_x1/resolve/main/Tiny_x1.zip"
    archive.parent.mkdir(parents=True)
    with zipfile.ZipFile(archive, "w") as file:
        for name, text in FILES.items():
            file.writestr(f"Tiny_x1/{name}", text)
    return archive


def download(hub: Path, *names: str) -> subprocess.CompletedProcess[str]:
    root = hub.parents[4]
    environment = os.environ | {"FIELDCTR_DATA": str(root / "data"), "RECZOO_HUB": f"file://{root}/hub"}
    command = [root / "scripts/download_reczoo.sh", *names]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1800)


def found(hub: Path) -> dict[str, bytes]:
    folder = hub.parents[4] / "data/reczoo"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


WHOLE = {f"Tiny_x1/{name}": text for name, text in FILES.items()}


def test_a_data_set_arrives_once(hub: Path) -> None:
    assert download(hub, "Tiny_x1").returncode == 0
    assert found(hub) == WHOLE
    hub.unlink()
    assert "is there already" in download(hub, "Tiny_x1").stdout


def test_a_download_that_was_cut_goes_on(hub: Path) -> None:
    folder = hub.parents[4] / "data/reczoo"
    folder.mkdir(parents=True)
    (folder / ".Tiny_x1.zip.part").write_bytes(hub.read_bytes()[:40])
    assert download(hub, "Tiny_x1").returncode == 0
    assert found(hub) == WHOLE


def test_altered_files_get_no_name(hub: Path) -> None:
    with zipfile.ZipFile(hub, "w") as file:
        for name, text in FILES.items():
            file.writestr(name, text.replace(b"0,3", b"1,3"))
    done = download(hub, "Tiny_x1")
    assert done.returncode == 1
    assert "not what was published" in done.stderr
    assert hashlib.md5(FILES["test.csv"]).hexdigest() in done.stderr
    assert found(hub) == {}


def test_a_damaged_archive_is_not_kept(hub: Path) -> None:
    hub.write_bytes(hub.read_bytes()[:-30])
    done = download(hub, "Tiny_x1")
    assert done.returncode == 1
    assert "damaged" in done.stderr
    assert found(hub) == {}


def test_a_misspelt_name_is_answered_with_all(hub: Path) -> None:
    for names in ([], ["Tinny_x1"]):
        done = download(hub, *names)
        assert done.returncode == 2
        assert "Tiny_x1" in done.stderr
