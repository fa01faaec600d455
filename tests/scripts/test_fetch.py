"""scripts/fetch.sh, which the download scripts share: a file gets its name only when it is whole."""

import gzip
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
WHOLE = gzip.compress(bytes(range(256)) * 500, mtime=0)

pytestmark = pytest.mark.skipif(not shutil.which("curl"), reason="no curl here")


def fetch(folder: Path, published: bytes, md5: str = "") -> subprocess.CompletedProcess[str]:
    (folder / "published").write_bytes(published)
    code = f". {SCRIPTS}/fetch.sh; fetch file://{folder}/published table/log.gz {md5}"
    environment = os.environ | {"FIELDCTR_DATA": str(folder)}
    return subprocess.run(["bash", "-euc", code], capture_output=True, text=True, env=environment, timeout=1800)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "table").mkdir()
    return tmp_path / "table"


def test_a_download_goes_on_where_it_stopped(table: Path) -> None:
    (table / "log.gz.part").write_bytes(WHOLE[:100])
    done = fetch(table.parent, WHOLE, hashlib.md5(WHOLE).hexdigest())
    assert "from byte position 100" in done.stderr
    assert [path.name for path in table.iterdir()] == ["log.gz"]
    assert (table / "log.gz").read_bytes() == WHOLE
    assert "is there" in fetch(table.parent, b"another").stdout


@pytest.mark.parametrize(("published", "md5"), [(WHOLE, "0" * 32), (WHOLE[:-9], "")])
def test_what_is_not_whole_gets_no_name(published: bytes, md5: str, table: Path) -> None:
    done = fetch(table.parent, published, md5)
    assert done.returncode != 0
    assert "not what the publisher announced" in done.stderr
    assert not (table / "log.gz").exists()


def test_a_publisher_that_does_not_answer_leaves_nothing(table: Path) -> None:
    code = f". {SCRIPTS}/fetch.sh; fetch file://{table}/nowhere log.gz"
    environment = os.environ | {"FIELDCTR_DATA": str(table)}
    assert subprocess.run(["bash", "-euc", code], capture_output=True, env=environment, timeout=1800).returncode != 0
    assert list(table.iterdir()) == []


@pytest.mark.parametrize("kind", ["gztar", "zip"])
@pytest.mark.parametrize("inner", ["ml-1m", "."])
def test_an_archive_becomes_a_folder_at_once(kind: str, inner: str, tmp_path: Path) -> None:
    (tmp_path / "raw" / inner).mkdir(parents=True)
    for name in ("ratings.dat", "README"):
        (tmp_path / "raw" / inner / name).write_text(name)
    archive = shutil.make_archive(str(tmp_path / "a"), kind, tmp_path / "raw")
    code = f". {SCRIPTS}/fetch.sh; unpack {Path(archive).name} table; unpack {Path(archive).name} table"
    environment = os.environ | {"FIELDCTR_DATA": str(tmp_path)}
    done = subprocess.run(["bash", "-euc", code], capture_output=True, text=True, env=environment, timeout=1800)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "table").iterdir()) == ["README", "ratings.dat"]
    assert not list(tmp_path.glob(".*")), "no leftovers"
    assert "is there" in done.stdout


def test_taobao_says_how_to_get_the_links() -> None:
    done = subprocess.run([SCRIPTS / "download_taobao.sh"], capture_output=True, text=True, timeout=1800)
    assert done.returncode == 2
    assert "tianchi.aliyun.com" in done.stderr
