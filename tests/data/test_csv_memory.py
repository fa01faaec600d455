"""Preparing a CSV takes memory that its size does not decide."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fieldctr.data.generated import write_generated_csv

FIELDS = 39
PROGRAM = f"""
import sys
from pathlib import Path
from fieldctr.commands.bench_data import prepare_once
print(prepare_once(Path(sys.argv[1]), {FIELDS}, 2)[2])
"""


def write_repeated(path: Path, times: int) -> None:
    """One table of 20,000 rows, `times` times: real draws would take longer than preparing them."""
    write_generated_csv(path, num_fields=FIELDS, vocab_size=1000, rows=20_000, seed=1)
    header, body = path.read_bytes().split(b"\n", 1)
    with path.open("wb") as file:
        file.write(header + b"\n")
        for _ in range(times):
            file.write(body)


def peak_megabytes(folder: Path, times: int) -> float:
    folder.mkdir()
    write_repeated(folder / "table.csv", times)
    environment = {key: value for key, value in os.environ.items() if key != "POLARS_CSV_CHUNK_SIZE"}
    environment["POLARS_MAX_THREADS"] = "2"  # each reads ahead
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800, check=True)
    return float(done.stdout)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows_of_a_csv(tmp_path: Path) -> None:
    few, many = peak_megabytes(tmp_path / "few", 12), peak_megabytes(tmp_path / "many", 40)
    assert many < 1.5 * few
