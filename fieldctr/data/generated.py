"""Tables of a chosen size without meaning, for benchmarks: they cost what real ones cost."""

from pathlib import Path

import numpy as np
import polars as pl

from fieldctr.data.dataset import Split
from fieldctr.data.hashing import mixed
from fieldctr.schema import Field, Schema

CHUNK = 100_000  # rows written at a time
ZIPF = 1.1  # exponent of the value frequencies
NUM_INTEGERS, BLANK = 13, 0.12  # of Criteo's columns, and the share of its cells that are empty
CRITEO_SIZES = (  # values of C1 to C26 in the 45,840,617 rows of the challenge
    1460, 583, 10_131_227, 2_202_608, 305, 24, 12_517, 633, 3, 93_145, 5683, 8_351_593, 3194, 27, 14_992, 5_461_306, 10,
    5652, 2173, 4, 7_046_547, 18, 15, 286_181, 105, 142_572,
)  # fmt: skip


def vocabulary_sizes(num_fields: int, total: int) -> list[int]:
    """Sizes that fall geometrically from one large id field to flags, and sum to about `total` (at least 2 each)."""
    share = np.geomspace(1, 1e-4, num_fields)
    return [max(2, int(total * part / share.sum())) for part in share]


def zipf_ids(rng: np.random.Generator, size: int, rows: int) -> np.ndarray:
    """(rows,) int32 in 1..size-1, frequent ids first: the inverse of a continuous power law, 10 ns a draw."""
    uniform = rng.random(rows)
    ids = (1 - uniform * (1 - size ** (1 - ZIPF))) ** (1 / (1 - ZIPF))
    return np.minimum(ids, size - 1).astype(np.int32)


def generated_split(num_fields: int, vocab_size: int, rows: int, *, seed: int) -> tuple[Schema, Split]:
    """An encoded split in memory with random labels, a quarter of them clicks."""
    rng = np.random.default_rng(seed)
    schema = Schema(tuple(Field(f"f{i}", size) for i, size in enumerate(vocabulary_sizes(num_fields, vocab_size))))
    ids = np.stack([zipf_ids(rng, field.vocab_size, rows) for field in schema.fields], axis=1)
    return schema, Split(ids, (rng.random(rows) < 0.25).astype(np.float32))


def write_generated_csv(path: Path, *, num_fields: int, vocab_size: int, rows: int, seed: int) -> None:
    """A CSV with columns label, f0, f1, ...; values are texts of 8 characters, as in Criteo."""
    rng = np.random.default_rng(seed)
    sizes = vocabulary_sizes(num_fields, vocab_size)
    with path.open("wb") as file:
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            columns = {f"f{i}": zipf_ids(rng, size, count) for i, size in enumerate(sizes)}
            frame = pl.DataFrame({"label": (rng.random(count) < 0.25).astype(np.int8), **columns})
            texts = frame.with_columns(pl.exclude("label").cast(pl.String).str.pad_start(8, "x"))
            texts.write_csv(file, include_header=start == 0)


def write_generated_criteo(path: Path, *, rows: int, seed: int) -> None:
    """A table in the format of Criteo's train.txt: a label, 13 counts, 26 hashes; tabs, no header, empty where missing.

    As many values as there, drawn from a power law.
    """
    rng = np.random.default_rng(seed)
    digits = pl.Series([f"{k:04x}" for k in range(1 << 16)])
    with path.open("wb") as file:
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            columns = {"label": pl.Series((rng.random(count) < 0.256).astype(np.int8))}
            for i in range(NUM_INTEGERS):
                counts = pl.Series(np.floor(rng.lognormal(1.0, 1.5, count)).astype(np.int32) - (i == 1))
                columns[f"I{i + 1}"] = counts.set(pl.Series(rng.random(count) < BLANK), None)
            for i, size in enumerate(CRITEO_SIZES):
                hashes = mixed(zipf_ids(rng, size + 1, count).astype(np.uint64) + np.uint64(i << 32)) >> np.uint64(32)
                texts = digits.gather(hashes >> np.uint64(16)) + digits.gather(hashes & np.uint64(0xFFFF))
                columns[f"C{i + 1}"] = texts.set(pl.Series(rng.random(count) < BLANK), None)
            pl.DataFrame(columns).write_csv(file, include_header=False, separator="\t")
