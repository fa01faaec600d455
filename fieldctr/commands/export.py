"""`fieldctr export run=... output=...`: a finished run's model as a folder that scores raw rows without fieldctr."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fieldctr.artifacts import read_key
from fieldctr.commands.trained import Trained, load_trained
from fieldctr.config import RuntimeConfig, parse
from fieldctr.data.fields.spelling import text_of
from fieldctr.data.reading import null_texts
from fieldctr.data.sources import tidy
from fieldctr.disk import write_json
from fieldctr.errors import UserError
from fieldctr.serving import scorer
from fieldctr.serving.card import in_words, needs, write_card
from fieldctr.serving.folder import refuse_taken, written
from fieldctr.serving.graph import Format, Served, refuse_missing, traced, write_graph
from fieldctr.serving.tables import to_int8
from fieldctr.serving.transforms import Transforms, transforms
from fieldctr.training.evaluate import evaluate, predict
from fieldctr.training.metrics import recalibrated, sigmoid

LIMITS = {"pt2": 1e-6, "aoti": 1e-6, "onnx": 1e-5}  # of a difference of pCTR
CHECKED_ROWS = 10_000  # of valid, on which it is measured


@dataclass(frozen=True)
class ExportConfig:
    """The root of `fieldctr export`."""

    data_root: str
    outputs: str
    run: str
    output: str
    format: Format
    int8: bool
    runtime: RuntimeConfig


def main(node: dict[str, Any]) -> None:
    """Write the bundle, measure that it says what `fieldctr predict` says, and print that."""
    config = parse(ExportConfig, node, "")
    output = Path(config.output)
    refuse_taken(output)
    refuse_missing(config.format)
    on_cpu = replace(config.runtime, device="cpu")
    trained = load_trained(Path(config.run), outputs=Path(config.outputs), runtime=on_cpu, splits=["valid"])
    trained = trained._replace(runtime=replace(trained.runtime, precision="fp32"))  # which the graph computes in
    dataset = trained.dataset
    table = transforms(dataset.folder, nulls=_nulls(dataset.folder), negative_rate=dataset.negative_rate)
    with written(output) as folder:
        card = _fill(folder, trained, table, config)
    print(f"{card['model']} on {card['dataset']}, seed {card['seed']}, as {config.format} in {output}")
    print(*(f"  {line}" for line in in_words(card)), sep="\n")


def _fill(folder: Path, trained: Trained, table: Transforms, config: ExportConfig) -> dict[str, Any]:
    dataset, result = trained.dataset, trained.result
    write_json(folder / "bundle.json", table.record)
    np.savez(folder / "arrays.npz", **table.arrays)  # ty: ignore[invalid-argument-type]
    shutil.copy(str(scorer.__file__), folder)
    small = _shrunk(trained) if config.int8 else None
    served = Served(trained.model, [(field.column, field.on(torch.device("cpu"))) for field in dataset.valid.vectors])
    program = traced(served, num_columns=dataset.schema.num_columns, num_numeric=dataset.schema.num_numeric)
    write_graph(program, folder, config.format)
    card = {
        **{key: result[key] for key in ("model", "dataset", "seed", "config_digest", "data_digest")},
        "format": config.format,
        "compiled_for": torch.backends.cpu.get_cpu_capability() if config.format == "aoti" else None,
        "needs": needs(config.format),
        "columns": table.record["columns"],
        "histories": bool(table.record["histories"]),
        "metrics": {split: result[split] for split in ("valid", "test") if split in result},
        "int8": small,
        "parity": _parity(folder, trained, config.format),
    }
    write_card(folder, card)
    return card


def _nulls(folder: Path) -> Iterable[str]:
    """The texts that the source of a prepared table takes for missing in every column: tidy tables say some."""
    source = read_key(folder)["source"]
    if source["_target_"] != f"{tidy.__name__}.read":
        return ()
    texts = null_texts(source.get("null_values") or ())
    return (*texts, *map(text_of, texts))


def _shrunk(trained: Trained) -> dict[str, Any]:
    """Make the model's tables ones of 8 bits, in place; gives what that saves and costs."""
    before = _valid_auc(trained)
    size = to_int8(trained.model)
    after = _valid_auc(trained)
    return {
        "table_bytes_before": size.before,
        "table_bytes": size.after,
        "valid_auc_before": before,
        "valid_auc": after,
        "loss_of_auc": before - after,
    }


def _valid_auc(trained: Trained) -> float:
    size, runtime = trained.config.trainer.eval_batch_size, trained.runtime
    return evaluate(trained.model, trained.dataset.valid, batch_size=size, runtime=runtime).metrics["auc"]


def _parity(folder: Path, trained: Trained, kind: Format) -> dict[str, Any]:
    """How far the bundle's pCTR is from the model's; UserError where that is more than the format allows."""
    rows = trained.dataset.valid.take(slice(CHECKED_ROWS))
    values = np.empty((len(rows), 0), np.float32) if rows.values is None else np.asarray(rows.values)
    bundle = scorer.Scorer(folder, threads=trained.runtime.threads)
    logit = bundle.run(np.asarray(rows.ids_of(slice(None))), values)
    size, rate = trained.config.trainer.eval_batch_size, trained.dataset.negative_rate
    expected = predict(trained.model, rows, batch_size=size, runtime=trained.runtime)
    found, expected = (sigmoid(recalibrated(one, rate)) for one in (logit, expected))
    largest = float(np.abs(found - expected).max())
    if not largest <= LIMITS[kind]:
        raise UserError(
            f"format={kind}: the graph's pCTR differs from the model's by up to {largest:.1e}, more than "
            f"{LIMITS[kind]:.0e}: what the model computes does not survive the export. Nothing was written"
        )
    return {"rows": len(rows), "largest": largest, "limit": LIMITS[kind]}
