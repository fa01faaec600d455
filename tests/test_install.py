"""What installs fieldctr agrees: pyproject.toml, Makefile, CI, doctor, and the Dockerfile that nothing here builds."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from fieldctr.commands.doctor import PYTHONS

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
STEPS = [line.partition(" ")[::2] for line in DOCKERFILE.splitlines() if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_versions_of_python_are_the_same_everywhere(project: dict[str, Any]) -> None:
    job = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]["check"]
    classified = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    assert list(PYTHONS) == classified == job["strategy"]["matrix"]["python"]
    assert project["requires-python"] == f">={PYTHONS[0]}"
    assert f"With Python {PYTHONS[0]} to {PYTHONS[-1]}" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert " ".join(f"python{one}" for one in PYTHONS) in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_dockerfile_copies_what_is_there_and_what_its_context_has() -> None:
    copied = [name for step, rest in STEPS if step == "COPY" for name in rest.split()[:-1]]
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[0] == "*"
    assert copied
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}" in ignored


def test_the_dockerfile_installs_what_the_project_names(project: dict[str, Any]) -> None:
    runs = " ".join(rest for step, rest in STEPS if step == "RUN")
    extras = re.findall(r"'\.\[(.*?)\]'", runs)[0].split(",")
    assert set(extras) <= project["optional-dependencies"].keys()
    assert re.findall(r"'(torch.*?)'", runs)[0] in project["dependencies"]
    assert "--index-url https://download.pytorch.org/whl/cpu" in runs  # before the line that would take CUDA's
    assert runs.index("whl/cpu") < runs.index("'.[")
    for file in ("readme", "license-files"):  # without which the project cannot be built
        for name in [project[file]] if isinstance(project[file], str) else project[file]:
            assert any(step == "COPY" and name in rest for step, rest in STEPS)


def test_the_dockerfile_calls_a_command_that_is_there(project: dict[str, Any]) -> None:
    steps = dict(STEPS)
    assert steps["FROM"].removeprefix("python:").removesuffix("-slim") in PYTHONS
    assert yaml.safe_load(steps["ENTRYPOINT"]) == [*project["scripts"]]
    assert yaml.safe_load(steps["CMD"]) == ["--help"]


def test_make_takes_the_first_python_that_runs(tmp_path: Path) -> None:
    for name, code in {"python3.11": 127, "python3.12": 0, "python3.13": 0}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {code}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["make", "--dry-run", "--always-make", "setup"],
        cwd=ROOT, capture_output=True, text=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "python3.12 -m pip install" in done.stdout
    assert "--python python3.12 .venv" in done.stdout
