"""CPU seconds that a call takes before it answers, beside the most that it may: python scripts/start_times.py.

CPU seconds, for a busy machine; the least of two, for a cold one. The last row ends where the first step would begin,
on a table that is prepared.
"""

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

SCRIPT = Path(sys.executable).parent / "fieldctr"
SMALL = ("tracker=none", "runtime.threads=1", "runtime.matmul=mkl", "dataset.source.rows=20000")
CALLS = [  # arguments, most CPU seconds
    ("--help", 0.1),
    ("list", 0.2),
    ("train --help", 0.3),
    ("train --cfg job", 1.0),
    ("train trainer.batch_size=0", 1.0),
    ("train model.dropout=9", 1.0),
    ("train modle=fm", 1.0),
    ("evaluate run=x split=all", 1.0),
    ("compare byy=model", 1.0),
    ("baseline seed=abc", 1.0),
    ("ssft list", 1.0),
    ("doctor", 3.0),
]
FIRST_STEP = 3.0
UNTIL_IT = """
import sys
from fieldctr.cli import run
from fieldctr.training.progress import Progress
Progress.__enter__ = lambda self: sys.exit()
run(*sys.argv[1:])
"""


def main() -> None:
    """Print a Markdown table; exit code 1 where a call takes longer than it may."""
    with tempfile.TemporaryDirectory() as folder:
        seconds([SCRIPT, "prepare", SMALL[-1]], folder)
        print("| fieldctr | CPU s | at most |\n|---|---|---|")
        late = [row(call, [SCRIPT, *call.split()], folder, most) for call, most in CALLS]
        late.append(row("train", [sys.executable, "-c", UNTIL_IT, "train", *SMALL], folder, FIRST_STEP))
    raise SystemExit(any(late))


def row(call: str, command: Sequence[str | Path], folder: str, most: float) -> bool:
    """Print the least of two; whether that is too long."""
    took = min(seconds(command, folder) for _ in range(2))
    print(f"| `{call}` | {took:.2f} | {most:g} |{'  too long' if took > most else ''}", flush=True)
    return took > most


def seconds(command: Sequence[str | Path], folder: str) -> float:
    """User and system time of a process and of those that it waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    subprocess.run(command, cwd=folder, capture_output=True, env=environment, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


if __name__ == "__main__":
    main()
