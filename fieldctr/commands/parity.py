"""`fieldctr parity dataset=...`: whether a run here can be compared with the public board, and where it cannot.

Five levels: 1 files, 2 vocabularies, 3 parameter counts, 4 the loss of one batch, 5 a trained model's AUC. None but the
last needs training, and 3 and 4 need no file.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import yaml

from fieldctr.analysis.parity.fixed_batch import first_rows, losses, made_rows
from fieldctr.analysis.parity.parameter_counts import board_parameters, parameters_here
from fieldctr.analysis.parity.protocol import Count, Protocol
from fieldctr.analysis.parity.reference_models import MODELS
from fieldctr.catalog import conf_dir, options
from fieldctr.config import parse
from fieldctr.data.dataset import Dataset
from fieldctr.data.prepare import prepared
from fieldctr.errors import UserError
from fieldctr.models.ctr_model import build_model
from fieldctr.runs import load_config, load_result, refuse_trial
from fieldctr.schema import Schema

TOLERANCE = 3e-6  # of a loss: float32 against float64
REACH = 3.0  # standard deviations


@dataclass(frozen=True)
class ParityConfig:
    """The root of `fieldctr parity`."""

    data_root: str
    outputs: str
    dataset: dict[str, Any]
    run: str | None


class Check(NamedTuple):
    """One thing looked at. `open`: it could not be looked at, and `text` says why."""

    level: int
    verdict: Literal["ok", "differs", "open"]
    text: str


def main(node: dict[str, Any]) -> None:
    """Print one line for each check; exit with 1 when something differs from what was published."""
    config = parse(ParityConfig, node, "")
    protocol = Protocol.load(config.dataset["name"])
    auc = check_auc(protocol, config.run)
    dataset, files = check_files(config)
    checks = [
        files,
        *check_vocabulary(protocol, dataset),
        *check_counts(protocol),
        *check_losses(protocol, dataset),
        auc,
    ]
    for check in checks:
        print(f"{check.level}  {check.verdict:8} {check.text}")
    if any(check.verdict == "differs" for check in checks):
        raise SystemExit(1)


def check_files(config: ParityConfig) -> tuple[Dataset | None, Check]:
    """Level 1: md5 of the files and rows of the splits, which preparation refuses if they are others."""
    folder, published = Path(config.dataset["raw_dir"]), config.dataset.get("published")
    if not published:
        return None, Check(1, "open", "dataset.published is null: these files are not claimed to be the published ones")
    absent = [name for name in published["md5"] if not (folder / name).is_file()]
    if absent:
        origin = config.dataset["source"].get("origin", "its publisher")
        return None, Check(1, "open", f"no {', '.join(absent)} in {folder}: get them from {origin}")
    try:
        dataset = prepared(config.dataset, data_dir=Path(config.outputs) / "data")
    except UserError as error:
        return None, Check(1, "differs", str(error))
    rows = ", ".join(f"{split} {rows:,}" for split, rows in published["rows"].items())
    return dataset, Check(1, "ok", f"md5 of {', '.join(published['md5'])}; rows of {rows}")


def check_vocabulary(protocol: Protocol, dataset: Dataset | None) -> Iterator[Check]:
    """Level 2: each field's vocabulary, as the board counts it."""
    if not protocol.vocab_size:
        yield Check(2, "open", "no record of the board tells the vocabularies")
    elif dataset is None:
        yield Check(2, "open", "no prepared table")
    else:
        found = {field.name: field.vocab_size for field in dataset.schema.fields}
        expected = {name: protocol.expected(name) for name in protocol.vocab_size}
        for name in expected.keys() | found.keys():
            if expected.get(name) != found.get(name):
                text = f"{name}: {found.get(name, 0) - 1:,} features, the board's {expected.get(name, 0) - 1:,}"
                yield Check(2, "differs", text)
        if found == expected:
            yield Check(2, "ok", f"vocabularies of {len(found)} fields, {sum(found.values()):,} rows")


def check_counts(protocol: Protocol) -> Iterator[Check]:
    """Level 3: parameters in the board's logs by formula, and those of the models here by theirs."""
    if not protocol.counts:
        yield Check(3, "open", "no record of the board tells parameter counts")
    for count in protocol.counts:
        pairs = {"logged": (count.parameters, board_parameters(protocol, count))}
        if count.model in options("model"):
            schema = protocol.schema()
            pairs["built here"] = (built_parameters(schema, count), parameters_here(schema, count))
        text = "; ".join(f"{what} {found:,}, by formula {formula:,}" for what, (found, formula) in pairs.items())
        verdict = "ok" if all(found == formula for found, formula in pairs.values()) else "differs"
        yield Check(3, verdict, f"{count.model}{f' ({count.form})' if count.form else ''}: parameters {text}")


def built_parameters(schema: Schema, count: Count) -> int:
    """How many parameters the model of conf/model has with the record's settings; its weights take no memory."""
    node = model_node(count.model)
    settings = {"hidden_dims": [*count.hidden_dims], "batch_norm": count.batch_norm, "num_layers": count.num_layers}
    node |= {key: value for key, value in settings.items() if key in node}
    with torch.device("meta"):
        model = build_model(schema, dim=count.dim, model=node, enhancer=None, seed=1)
    return model.num_parameters()["total"]


def check_losses(protocol: Protocol, dataset: Dataset | None) -> Iterator[Check]:
    """Level 4: the loss of one batch with fixed weights, against reference models: their equations in numpy."""
    if dataset is None and not protocol.vocab_size:
        yield Check(4, "open", "no prepared table and no published vocabulary to make a batch of")
        return
    schema, batch = first_rows(dataset) if dataset else made_rows(protocol.schema())
    origin = "the first rows of train" if dataset else "rows made from a seed"
    for name in (name for name in MODELS if name in options("model")):
        found, expected = losses(name, model_node(name), schema, batch)
        verdict = "ok" if abs(found - expected) < TOLERANCE else "differs"
        yield Check(4, verdict, f"{name}: loss {found:.6f} on {origin}, {expected:.6f} by its equation")


def check_auc(protocol: Protocol, run: str | None) -> Check:
    """Level 5: a run's test AUC within REACH standard deviations of the board's mean of five runs."""
    if run is None:
        return Check(5, "open", "no run: give run=FOLDER of a finished one")
    trained_on, result = load_config(Path(run))["dataset"], load_result(Path(run))
    refuse_trial(Path(run), result)
    model, auc = result["model"], result["test"]["auc"]
    if trained_on["name"] != protocol.name:
        raise UserError(f"run={run} is on {trained_on['name']}, not on {protocol.name}")
    if not trained_on.get("published"):
        return Check(5, "open", f"{model}: AUC {auc:.4f}, but the run took other files: dataset.published was null")
    if model not in protocol.reruns:
        shown = f"shows {protocol.board[model]:.4f} of one run" if model in protocol.board else "does not have it"
        known = f"; five runs are known of {', '.join(protocol.reruns)}" if protocol.reruns else ""
        return Check(5, "open", f"{model}: AUC {auc:.4f}; the board {shown}, without a spread{known}")
    mean, sd = protocol.reruns[model].mean, protocol.reruns[model].sd
    verdict = "ok" if abs(auc - mean) <= REACH * sd else "differs"
    return Check(
        5, verdict, f"{model}: AUC {auc:.6f}, the board's five {mean:.6f} +- {sd:.6f}: {(auc - mean) / sd:+.1f} sd"
    )


def model_node(name: str) -> dict[str, Any]:
    content = yaml.safe_load((conf_dir() / "model" / f"{name}.yaml").read_text(encoding="utf-8"))
    return content.get("model", content)  # a YAML that brings a rate of its own has the node below its name
