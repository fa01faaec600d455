"""Where a number comes from: commit, versions, host and command line of this process."""

import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from fieldctr.trust import given

LIBRARIES = ("torch", "numpy", "polars", "hydra-core")


def provenance() -> dict[str, Any]:
    """Commit, versions, host and command line of this process."""
    versions = {"python": platform.python_version(), "fieldctr": metadata.version("fieldctr")}
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": [*sys.argv, *given()],
        "commit": _commit(),
        "versions": versions | {name: metadata.version(name) for name in LIBRARIES},
        "host": {"machine": platform.machine(), "system": platform.platform(), "cores": os.cpu_count()},
    }


def short(commit: str | None) -> str:
    """A commit for reading: ten digits, and the + of local changes."""
    return f"{commit[:10]}{'+' * commit.endswith('+')}" if commit else "none"


def _commit() -> str | None:
    """The checkout's commit, with + when it has local changes; None for an installed wheel."""
    source = Path(__file__).parent.parent
    if not (source / ".git").exists():
        return None
    try:
        head = _git(source, "rev-parse", "HEAD")
        return head + ("+" if _git(source, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError) as error:
        print(f"fieldctr: git does not tell the commit of {source}, so none is recorded: {error}", file=sys.stderr)
        return None


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True, timeout=10
    ).stdout.strip()
