"""A finished run, loaded again: its configuration, its result, its table and its model."""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fieldctr.commands.machine import start_runtime
from fieldctr.config import RuntimeConfig, TrainConfig, parse
from fieldctr.data.dataset import Dataset, check_table
from fieldctr.data.test_reads import note_test_read
from fieldctr.errors import UserError
from fieldctr.models.ctr_model import CTRModel, build_model
from fieldctr.nn.text_lookup import TextVectors
from fieldctr.nn.value_lookup import ValueVectors
from fieldctr.runs import CODE, CONFIG, MODEL, check_run, load_config, load_result, refuse_made_anew, refuse_trial
from fieldctr.training.evaluate import Evaluation, evaluate
from fieldctr.training.runtime import Runtime
from fieldctr.trust import own_code


class Trained(NamedTuple):
    """What `fieldctr train` left in a folder, ready to compute on `runtime`.

    Its logits are those of the table it was trained on: `training.metrics.recalibrated(logit, dataset.negative_rate)`
    are those of all rows.
    """

    config: TrainConfig
    result: dict[str, Any]
    dataset: Dataset
    model: CTRModel
    runtime: Runtime


def load_trained(
    folder: Path, *, outputs: Path, runtime: RuntimeConfig, splits: Iterable[str] = (), folded: bool = True
) -> Trained:
    """The finished run in `folder`, its prepared table below `outputs`; UserError when either is missing or damaged.

    Of the table's matrices only those of `splits` are read whole for this: others are not to be used. Not `folded`, its
    model is in the form in which it was trained.
    """
    node, result = load_config(folder), load_result(folder)  # which checks both files before one is believed
    config = parse(TrainConfig, node, "")
    rate = config.dataset.get("negative_rate")
    dataset = dataset_of(folder, result, negative_rate=rate, outputs=outputs, splits=splits)
    weights = load_weights(folder)
    refuse_made_anew(folder, result)
    # Field embeddings are saved with what reads them: no encoder is needed.
    saved = {"model": weights.get("backbone.field_embeddings"), "enhancer": weights.get("enhancer.field_embeddings")}
    texts = result.get("text_vectors", {})
    model = build_model(
        dataset.schema,
        dim=config.embedding_dim,
        model=config.model,
        enhancer=config.enhancer,
        seed=config.seed,
        field_embeddings={name: vectors for name, vectors in saved.items() if vectors is not None},
        text_vectors=_text_vectors(folder, texts, config, outputs=outputs) if texts else [],
        value_vectors=_value_vectors(folder, result["value_vectors"]["digest"], config, outputs=outputs)
        if "value_vectors" in result
        else None,
    )
    fill(model, weights, folder)
    for module, now in own_code(node).items():
        if result.get(CODE, {}).get(module, now)["sha256"] != now["sha256"]:
            told = f"run={folder}: {now['file']} has changed since the run was trained: its numbers may be others"
            warnings.warn(told, stacklevel=2)
    chosen = start_runtime(runtime, config.trainer, outputs=outputs)
    model = model.fold() if folded else model.eval()
    return Trained(config, result, dataset, model.to(chosen.device), chosen)


def _text_vectors(folder: Path, digests: Mapping[str, str], config: TrainConfig, *, outputs: Path) -> list[TextVectors]:
    """What the run in `folder` read of users and items; UserError when it is gone."""
    from fieldctr.commands.entity_vectors import read_texts

    places = {kind: outputs / "text_vectors" / digest for kind, digest in digests.items()}
    for place in places.values():
        _check_there(folder, place, "fieldctr texts encode=true, with the run's dataset and encoder")
    return read_texts(places, config.enhancer or {}, seed=config.seed)


def _value_vectors(folder: Path, digest: str, config: TrainConfig, *, outputs: Path) -> ValueVectors:
    """What the run in `folder` read of the fields' values; UserError when it is gone."""
    from fieldctr.commands.value_vectors import read_values

    place = outputs / "value_vectors" / digest
    _check_there(folder, place, "train with the run's dataset, encoder and enhancer")
    return read_values(place, config.enhancer or {}, seed=config.seed)


def _check_there(folder: Path, place: Path, cure: str) -> None:
    if not place.is_dir():
        kind = place.parent.name.replace("_", " ")
        raise UserError(
            f"run={folder}: the {kind} {place} are gone. Set outputs=... to the folder that holds them, or make them "
            f"again: {cure}"
        )


def dataset_of(
    folder: Path, result: Mapping[str, Any], *, negative_rate: float | None, outputs: Path, splits: Iterable[str] = ()
) -> Dataset:
    """The prepared table of the finished run in `folder`; of the matrices only those of `splits` are checked whole."""
    table = table_of(folder, result, outputs=outputs)
    check_table(table, splits, cure=f"Remove {table} and make it again: fieldctr prepare dataset={result['dataset']}")
    return Dataset.load(table, name=result["dataset"], negative_rate=negative_rate)


def evaluated_split(folder: Path, trained: Trained, split: str) -> Evaluation:
    """The model of the run in `folder` on a split of its table; the ledger is told of test."""
    trainer = trained.config.trainer
    if split == "test":
        refuse_trial(folder, trained.result)
        digest = trained.result["config_digest"]
        note_test_read(trained.dataset.folder, command="evaluate", run=folder, config_digest=digest)
    rows = getattr(trained.dataset, split)
    return evaluate(
        trained.model, rows, batch_size=trainer.eval_batch_size, runtime=trained.runtime, extra=trainer.extra_metrics
    )


def load_weights(folder: Path, *, key: str = "run") -> dict[str, Tensor]:
    """The weights of the finished run in `folder`, which `key` named; UserError where they cannot be read."""
    path = folder / MODEL
    check_run(folder, [MODEL])
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{key}={folder}: {path} cannot be read: {error}. Train it anew") from error


def fill(model: nn.Module, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Load the weights; a UserError names the first that is not as the run's config.json builds it."""
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    for name in expected | found:
        here, there = expected.get(name, "absent"), found.get(name, "absent")
        if here != there:
            raise UserError(
                f"run={folder}: weight {name} is {there} in {folder / MODEL} and {here} in the model of {CONFIG} and "
                "its table. The files are of different runs: train it anew"
            )
    model.load_state_dict(weights)


def table_of(folder: Path, result: Mapping[str, Any], *, outputs: Path, key: str = "run") -> Path:
    """The prepared table of the finished run in `folder`, which `key` named; UserError when it is gone."""
    data_folder = outputs / "data" / result["data_digest"]
    if not data_folder.is_dir():
        raise UserError(
            f"{key}={folder}: its prepared table {data_folder} is gone. Set outputs=... to the folder that holds it, "
            f"or make it again: fieldctr prepare dataset={result['dataset']}"
        )
    return data_folder


def downsampled(negative_rate: float) -> str:
    """A line that says of which rows the metrics are."""
    return (
        f"dataset.negative_rate={negative_rate:g}: loss and metrics are those of the table as it is, non-clicks "
        "down-sampled; fieldctr predict gives the pCTR of all rows"
    )
