"""`fieldctr train warm_start=RUN`: begin with the weights of a finished run, also of one on other fields."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fieldctr.artifacts import file_digest
from fieldctr.commands.trained import load_weights, table_of
from fieldctr.config import TrainConfig, flat
from fieldctr.data.dataset import SCHEMA_FILE, Dataset, check_table
from fieldctr.data.values import field_values
from fieldctr.errors import UserError
from fieldctr.models.ctr_model import CTRModel, build_model
from fieldctr.runs import MODEL, load_config, load_result
from fieldctr.schema import Schema
from fieldctr.training.warm_start import match_tables, take_over

OWN = ("model", "enhancer", "embedding_dim")  # keys that must be the run's


def warm_start(
    model: CTRModel, folder: Path, config: TrainConfig, dataset: Dataset, vectors: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Take over what the run in `folder` has learned of the dataset's fields; gives what result.json says of it.

    `vectors` are the field embeddings that the model was built with.
    """
    before, result = load_config(folder, key="warm_start"), load_result(folder, key="warm_start")
    refuse_another_model(folder, before, config)
    table = table_of(folder, result, outputs=Path(config.outputs), key="warm_start")
    check_table(table, ())
    now, then = dataset.schema, Schema.load(table / SCHEMA_FILE)
    values, values_then = ([field.texts for field in field_values(path)] for path in (dataset.folder, table))
    matches = match_tables(now, then, values=values, values_before=values_then)

    def build(schema: Schema) -> CTRModel:
        return build_model(
            schema,
            dim=config.embedding_dim,
            model=config.model,
            enhancer=config.enhancer,
            seed=config.seed,
            field_embeddings={name: torch.empty(schema.num_fields, each.shape[1]) for name, each in vectors.items()},
        )

    try:
        take_over(model, load_weights(folder, key="warm_start"), matches, now, build)
    except UserError as error:
        raise UserError(f"warm_start={folder}: {error}") from error
    new = [field.name for field, absent in zip(now.fields, matches.new.tolist(), strict=True) if absent]
    features = int((matches.rows >= 0).sum())
    print(
        f"warm start from {folder}: {now.num_fields - len(new)} of {now.num_fields} fields, {features:,} of "
        f"{now.vocab_size:,} embedding rows; new: {', '.join(new) or 'none'}",
        file=sys.stderr,
    )
    return {
        "run": str(folder),
        "config_digest": result["config_digest"],
        "weights": file_digest(folder / MODEL),
        "new_fields": new,
        "known_rows": features,
    }


def refuse_another_model(folder: Path, before: Mapping[str, Any], config: TrainConfig) -> None:
    """Other keys of the model would make its weights mean something else, also where shapes fit."""
    then, now = (flat({key: node[key] for key in OWN if node[key] is not None}) for node in (before, vars(config)))
    differing = [key for key in then | now if then.get(key) != now.get(key)]
    if differing:
        changes = ", ".join(f"{key}={now.get(key, 'absent')} (was {then.get(key, 'absent')})" for key in differing[:3])
        raise UserError(
            f"warm_start={folder} has another model: {changes}. Give this run its keys, or take another run"
        )
