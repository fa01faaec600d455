"""What a run reads of language models: vectors of fields, of their values, and of the texts of users and items."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fieldctr.config import TrainConfig
from fieldctr.data.dataset import Dataset
from fieldctr.errors import UserError
from fieldctr.llm.account import account_in
from fieldctr.llm.field_embeddings import FieldEmbeddings
from fieldctr.models.ctr_model import reads_field_embeddings, reads_text_vectors, reads_value_vectors
from fieldctr.nn.text_lookup import TextVectors
from fieldctr.nn.value_lookup import ValueVectors

VALUES = "value_vectors"  # a key of result.json, and the stage below outputs
READERS = {"model": "model_field_embeddings", "enhancer": "field_embeddings"}  # a group, and its key in result.json


@dataclass(frozen=True)
class Vectors:
    """What the model and the enhancer read; empty for most runs.

    `fields` holds by reader a vector for each field (num_fields, width); `folders` are where all of them lie, and
    `origin` is what result.json says of them.
    """

    fields: dict[str, Tensor]
    texts: list[TextVectors]
    folders: list[Path]
    accounts: list[dict[str, Any]]  # of these folders
    origin: dict[str, Any]
    values: ValueVectors | None = None


def text_folders(config: TrainConfig, dataset: Dataset, device: torch.device) -> dict[str, Path]:
    """By kind of entity the folder with the vectors of its texts, made now where they are missing.

    The users and items of test are among them, no label is: it is called before test is sealed.
    """
    if not reads_text_vectors(config.enhancer):
        if config.knowledge:
            raise UserError(
                f"knowledge={config.choice('knowledge')} writes about users and items, and "
                f"enhancer={config.choice('enhancer')} reads no texts of them. Take enhancer=kar, or knowledge=describe"
            )
        return {}
    from fieldctr.commands.entity_vectors import Reading, text_source, text_vector_folders

    reading = Reading(config.encoder, text_source(config.enhancer or {}), config.knowledge)
    return text_vector_folders(dataset, config.dataset, reading, outputs=Path(config.outputs), device=device)


def vectors(config: TrainConfig, dataset: Dataset, device: torch.device, *, texts: dict[str, Path]) -> Vectors:
    """All that the run reads, with the vectors of fields made now where they are missing."""
    fields, origin = {}, {}
    for reader, key in READERS.items():
        node = getattr(config, reader)
        if node and reads_field_embeddings(node, reader):
            fields[reader], origin[key] = _of_fields(config, reader, dataset, device)
    values, more = _of_values(config, dataset, device)
    origin |= more
    stages = {key: VALUES if key == VALUES else "field_embeddings" for key in origin}
    folders = [Path(config.outputs) / stages[key] / one["digest"] for key, one in origin.items()]
    if texts:
        origin["text_vectors"] = {kind: folder.name for kind, folder in texts.items()}
    folders = list(dict.fromkeys([*folders, *texts.values()]))  # the model may read what the enhancer reads
    read = _of_texts(config, texts)
    return Vectors(fields, read, folders, [account_in(folder) for folder in folders], origin, values)


def _of_fields(
    config: TrainConfig, reader: str, dataset: Dataset, device: torch.device
) -> tuple[Tensor, dict[str, Any]]:
    _refuse_schema(config, reader)
    from fieldctr.commands.field_vectors import vectors_for

    node, outputs = getattr(config, reader), Path(config.outputs)
    found, made = vectors_for(
        node, reader, dataset, config.dataset, config.encoder, outputs=outputs, device=device, seed=config.seed
    )
    return found, _origin(config, node, made)


def _of_values(
    config: TrainConfig, dataset: Dataset, device: torch.device
) -> tuple[ValueVectors | None, dict[str, Any]]:
    """What the enhancer reads of values, and what result.json says of these and of SSFT, whose encoder read them."""
    if not config.enhancer or not reads_value_vectors(config.enhancer):
        return None, {}
    _refuse_schema(config, "enhancer")
    from fieldctr.commands.value_vectors import read_values, value_vector_folder

    folder, tuned = value_vector_folder(
        config.enhancer, dataset, config.dataset, config.encoder, outputs=Path(config.outputs), device=device
    )
    origin = {"field_embeddings": _origin(config, config.enhancer, tuned), VALUES: {"digest": folder.name}}
    return read_values(folder, config.enhancer, seed=config.seed), origin


def _origin(config: TrainConfig, node: Mapping[str, Any], made: FieldEmbeddings) -> dict[str, Any]:
    origin = {"encoder": config.choice("encoder"), "source": node["source"], "digest": made.folder.name}
    return origin | {"history": made.account["history"], "cost": made.account["cost"]}


def _refuse_schema(config: TrainConfig, reader: str) -> None:
    if config.schema:
        raise UserError(
            f"schema={config.choice('schema')} changes the fields, and {reader}={config.choice(reader)} reads "
            "their names and entities as the dataset's YAML gives them. Use schema=none; "
            f"{reader}.source=permuted shuffles names"
        )


def _of_texts(config: TrainConfig, folders: dict[str, Path]) -> list[TextVectors]:
    if not folders or not config.enhancer:
        return []
    from fieldctr.commands.entity_vectors import read_texts

    return read_texts(folders, config.enhancer, seed=config.seed)
