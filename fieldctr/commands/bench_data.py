"""`fieldctr bench data`: rows/s and peak memory of preparation on tables of growing size."""

import multiprocessing
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fieldctr.config import Between, Positive, parse
from fieldctr.data.generated import write_generated_csv
from fieldctr.data.prepare import prepared
from fieldctr.memory import peak_resident_mb


@dataclass(frozen=True)
class BenchDataConfig:
    """The root of `fieldctr bench data`."""

    data_root: str
    outputs: str
    rows: list[int]
    num_fields: Positive
    vocab_size: Positive
    min_count: Positive
    seed: Annotated[int, Between(0)]


def main(node: dict[str, Any]) -> None:
    """Write each table, prepare it in a process of its own, print one line; all files are removed again."""
    config = parse(BenchDataConfig, node, "")
    print(f"{'rows':>12} {'CSV MB':>8} {'wall s':>8} {'CPU s':>8} {'rows/s':>10} {'peak MB':>8}")
    for rows in config.rows:
        with tempfile.TemporaryDirectory(prefix="fieldctr-bench-") as name:
            table = Path(name) / "table.csv"
            write_generated_csv(
                table, num_fields=config.num_fields, vocab_size=config.vocab_size, rows=rows, seed=config.seed
            )
            wall, cpu, peak = in_own_process(Path(name), config.num_fields, config.min_count)
            size = table.stat().st_size / 2**20
        print(f"{rows:12,} {size:8.0f} {wall:8.2f} {cpu:8.2f} {rows / wall:10,.0f} {peak:8.0f}", flush=True)


def in_own_process(folder: Path, num_fields: int, min_count: int) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak resident MB of preparing folder/table.csv, imports left out of the seconds."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(prepare_once, (folder, num_fields, min_count))


def prepare_once(folder: Path, num_fields: int, min_count: int) -> tuple[float, float, float]:
    node = dataset_node(folder, num_fields, min_count)
    begin, cpu_begin = time.perf_counter(), time.process_time()
    prepared(node, data_dir=folder / "prepared")
    return time.perf_counter() - begin, time.process_time() - cpu_begin, peak_resident_mb()


def dataset_node(folder: Path, num_fields: int, min_count: int) -> dict[str, Any]:
    """A `dataset` node for folder/table.csv: every column a categorical field, split at random."""
    source = {
        "_target_": "fieldctr.data.sources.tidy.read",
        "files": "table.csv",
        "origin": "",
        "separator": ",",
        "null_values": [],
        "label": {"column": "label"},
        "split": {"by": "random", "fractions": [0.8, 0.1, 0.1], "seed": 1},
    }
    fields = {f"f{i}": {} for i in range(num_fields)}
    return {
        "name": "bench",
        "raw_dir": str(folder),
        "source": source,
        "min_count": min_count,
        "group": None,
        "fields": fields,
    }
