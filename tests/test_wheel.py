"""The wheel, built and installed into an environment of its own, works from any folder."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command: str | Path, folder: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}  # else a checkout would win
    done = subprocess.run(
        [*map(str, command)], cwd=folder, env=environment, capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_installed_wheel_brings_its_configuration_and_runs_anywhere(tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "dist", folder=ROOT)
    wheel = next((tmp_path / "dist").glob("*.whl"))
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env/bin/python"
    # The libraries come from this environment by a path entry behind the new one's own: no download, and the editable
    # install of fieldctr here is not seen, because .pth files are only read in an environment's own folder.
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=tmp_path).strip())
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    run(python, "-m", "installer", wheel, folder=tmp_path)

    assert {"fieldctr/py.typed", "fieldctr/analysis/report/page/page.html"} <= {*zipfile.ZipFile(wheel).namelist()}

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert str(site) in run(python, "-c", "import fieldctr; print(fieldctr.__file__)", folder=elsewhere)
    script = tmp_path / "env/bin/fieldctr"
    assert "arXiv:2511.12081" in run(script, "list", "models", folder=elsewhere)
    small = ["model=lr", "dataset.source.rows=3000", "trainer.max_epochs=1", "tracker=none", "hydra.run.dir=run"]
    run(script, "train", *small, folder=elsewhere)
    result = json.loads((elsewhere / "run/result.json").read_text())
    assert result["commit"] is None
    assert 0 < result["test"]["auc"] < 1
