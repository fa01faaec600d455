"""What each way to use a language model costs on a made-up table: seconds and memory of its offline stage.

ssft    LLaCTR (arXiv:2505.14057): tune the encoder on values of each field, encode the fields' names
values  llactr_values: ssft, and its encoder reads all values of each field
kar     KAR (arXiv:2306.10933), knowledge as it is described: read each user and each item once
ctrl    CTRL (arXiv:2306.02841), its text tower frozen: read each row once; a tower that is trained takes three times
"""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from fieldctr.config import EncoderConfig
from fieldctr.data.values import FieldValues
from fieldctr.llm.cost import Clock
from fieldctr.llm.encoder import load_encoder
from fieldctr.llm.field_embeddings import peak_mb
from fieldctr.llm.prompts import field_prompts
from fieldctr.llm.ssft import tune
from fieldctr.llm.text_vectors import encoded
from fieldctr.llm.texts import FEATURES, Sentence, written

METHODS = ("ssft", "values", "kar", "ctrl")
READ_ROWS = ("kar", "ctrl")  # or what rows have: for the others a table's rows are all one
CLEAR = Path("/proc/self/clear_refs")  # 5 forgets the peak of this process's memory


class Table(NamedTuple):
    """The size of a made-up table."""

    rows: int
    fields: int
    values: int  # of each field


class Spent(NamedTuple):
    """What a method's offline stage took."""

    seconds: float
    peak_mb: float  # of the whole process, the model too
    tokens: int


def spent(
    config: EncoderConfig,
    table: Table,
    methods: Sequence[str],
    *,
    rows_per_entity: int,
    device: torch.device,
    converted: Path,
) -> dict[str, Spent]:
    """By method the cost of its offline stage on this table, without loading the model and making the texts."""
    users, half = -(-table.rows // rows_per_entity), max(1, table.fields // 2)
    texts = {
        "kar": lambda: [
            *sentences("user", users, table, half),
            *sentences("item", users, table, table.fields - half),
        ],
        "ctrl": lambda: sentences("row", table.rows, table, table.fields),
    }
    untuned, found = replace(config, tuning=replace(config.tuning, epochs=0)), dict[str, Spent]()
    for name in [one for one in texts if one in methods]:
        encoder, each = load_encoder(untuned, device, converted=converted), texts[name]()
        found[name] = measured(lambda encoder=encoder, each=each: read(encoder, each, untuned, device), device)
    if {"ssft", "values"} & {*methods}:
        encoder = load_encoder(config, device, converted=converted)
        own = found["ssft"] = measured(lambda: tuned(encoder, config, table), device)
        more = measured(lambda: read(encoder, value_texts(table), config, device), device)
        peak = max(own.peak_mb, more.peak_mb)
        found["values"] = Spent(own.seconds + more.seconds, peak, own.tokens + more.tokens)
    return {name: found[name] for name in methods}


def measured(work: Callable[[], int], device: torch.device) -> Spent:
    """Seconds and peak memory of some work that gives how many tokens it read."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif CLEAR.exists():
        CLEAR.write_text("5", encoding="ascii")
    clock = Clock(device)
    tokens = work()
    return Spent(clock.seconds(), peak_mb(device), tokens)


def sentences(kind: str, count: int, table: Table, fields: int) -> list[str]:
    """Texts of so many different entities, or of rows, as llm/texts.py tells them; all values occur."""
    generator = np.random.default_rng([table.values, fields])
    names = [f"field {i}" for i in range(fields)]
    columns = [
        [f"value {k}" for k in generator.permutation(np.resize(np.arange(table.values), count)).tolist()]
        for _ in range(fields)
    ]
    told = Sentence(f"This is {kind} {{{FEATURES}}}.", list(range(fields)), names, names)
    return [f"{i}: {text}" for i, text in enumerate(written(told, columns))]  # no two are equal


def value_texts(table: Table) -> list[str]:
    """The values of all fields, as llactr_values has them read."""
    return [f"field {i} is value {k}" for i in range(table.fields) for k in range(table.values)]


def read(encoder: Any, texts: list[str], config: EncoderConfig, device: torch.device) -> int:
    """Read each text once, as the stage of text vectors does; how many tokens that took."""
    watch: Any = nullcontext(_Silent())
    with tempfile.TemporaryDirectory(prefix="fieldctr-bench-") as name:
        work, before = Path(name), encoder.tokens
        micro_batch = config.tuning.micro_batch
        encoded(texts, lambda: encoder, work, micro_batch=micro_batch, device=device, watch=lambda *size: watch)
    return encoder.tokens - before


def tuned(encoder: Any, config: EncoderConfig, table: Table) -> int:
    """Tune the encoder on the table's fields; how many tokens that took."""
    values = [
        FieldValues([f"value {k}" for k in range(table.values)], np.ones(table.values, np.int64))
        for _ in range(table.fields)
    ]
    names = [f"field {i}" for i in range(table.fields)]
    tune(encoder, field_prompts(values, names, config), config.tuning, seed=config.seed, watch=_Silent())
    return encoder.tokens


class _Silent:
    """Hears how far a stage is, and says nothing."""

    def show(self, step: int, status: object) -> None: ...

    def tick(self, step: int, epoch: float, loss: object) -> None: ...

    def say(self, line: str) -> None: ...
