"""The page in a browser."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fieldctr.analysis.report.report import report

LOOK = Path(__file__).with_name("page_in_browser.py")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DOES_NOT_START = 3  # LOOK's exit code
HANGS_S = 300  # it takes three seconds


@pytest.mark.slow
def test_the_page_works_in_a_browser(made: Any, hostile: str, tmp_path: Path) -> None:
    if CHROMIUM is None or importlib.util.find_spec("playwright") is None:
        pytest.skip("NO BROWSER: chromium and playwright are not both installed (apt-get install chromium)")
    report(made.comparisons, tmp_path, outputs=made.outputs, study=made.study)
    auc = {arm["name"]: arm["metrics"]["auc"]["mean"] for arm in made.comparisons[0]["arms"]}
    words = [CHROMIUM, (tmp_path / "report.html").as_uri(), hostile, json.dumps(auc)]
    told = tmp_path / "told.txt"
    with told.open("w") as errors:
        looking = subprocess.Popen([sys.executable, LOOK, *words], start_new_session=True, stderr=errors)
    try:
        code = looking.wait(HANGS_S)
    except subprocess.TimeoutExpired:
        os.killpg(looking.pid, signal.SIGTERM)  # its driver then ends the browser, which has a session of its own
        looking.wait()
        pytest.skip(f"NO BROWSER: {CHROMIUM} does not answer within {HANGS_S} s on this machine")
    if code == DOES_NOT_START:
        pytest.skip(f"NO BROWSER: {CHROMIUM} does not start on this machine: {told.read_text()}")
    assert code == 0, told.read_text()
