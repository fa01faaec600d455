"""What preparing a table in Criteo's raw format costs, against polars merely reading the same file.

    python scripts/bench_criteo.py --rows 20000000 --seed 1 --folder /tmp/criteo

Prints wall and CPU seconds and peak memory of both, each in a process of its own. The folder keeps train.txt (230 bytes
a row), which the next call reads again, and loses the prepared table.
"""

import argparse
import multiprocessing
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from fieldctr.catalog import conf_dir
from fieldctr.data.delimited import scan_csv
from fieldctr.data.generated import write_generated_criteo
from fieldctr.data.prepare import prepared
from fieldctr.memory import peak_resident_mb

MAX_MEMORY_GB = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, required=True)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    if not (asked.folder / "train.txt").exists():
        write_generated_criteo(asked.folder / "train.txt", rows=asked.rows, seed=asked.seed)
    print(f"{'':>8} {'wall s':>8} {'CPU s':>8} {'peak MB':>8}")
    cost = {}
    for work in (read, prepare):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            wall, cost[work], peak = pool.apply(measured, (work, asked.folder))
        print(f"{work.__name__:>8} {wall:8.1f} {cost[work]:8.1f} {peak:8.0f}", flush=True)
    print(f"preparing takes {cost[prepare] / cost[read]:.2f} times the CPU seconds of reading")


def measured(work: Callable[[Path], None], folder: Path) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak resident MB of a process that does nothing else."""
    wall, cpu = time.perf_counter(), time.process_time()
    work(folder)
    return time.perf_counter() - wall, time.process_time() - cpu, peak_resident_mb()


def read(folder: Path) -> None:
    """Every cell as text, in batches that are dropped."""
    rows = 0
    header = [f"c{i}" for i in range(40)]
    for batch in scan_csv(folder / "train.txt", separator="\t", header=header).collect_batches(chunk_size=1 << 16):
        rows += len(batch)
    assert rows


def prepare(folder: Path) -> None:
    """dataset=criteo, and the prepared table removed."""
    node = yaml.safe_load((conf_dir() / "dataset" / "criteo.yaml").read_text(encoding="utf-8"))
    dataset = prepared(node | {"raw_dir": str(folder)}, data_dir=folder / "prepared", max_memory_gb=MAX_MEMORY_GB)
    assert dataset.facts["rows"]["dropped"] == {}
    shutil.rmtree(folder / "prepared")


if __name__ == "__main__":
    main()
