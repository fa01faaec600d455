"""What a run reads of language models: vectors of fields, and of the texts of users and items."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fieldctr.config import TrainConfig
from fieldctr.data.dataset import Dataset
from fieldctr.errors import UserError
from fieldctr.models.ctr_model import reads_field_embeddings, reads_text_vectors
from fieldctr.nn.text_lookup import TextVectors

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
    origin: dict[str, Any]


def text_folders(config: TrainConfig, dataset: Dataset, device: torch.device) -> dict[str, Path]:
    """By kind of entity the folder with the vectors of its texts, made now where they are missing.

    The users and items of test are among them, no label is: it is called before test is sealed.
    """
    if not reads_text_vectors(config.enhancer):
        return {}
    from fieldctr.commands.entity_vectors import text_vector_folders

    outputs = Path(config.outputs)
    return text_vector_folders(dataset, config.dataset, config.encoder, outputs=outputs, device=device)


def vectors(config: TrainConfig, dataset: Dataset, device: torch.device, *, texts: dict[str, Path]) -> Vectors:
    """All that the run reads, with the vectors of fields made now where they are missing."""
    fields, origin = {}, {}
    for reader, key in READERS.items():
        node = getattr(config, reader)
        if node and reads_field_embeddings(node, reader):
            fields[reader], origin[key] = _of_fields(config, reader, dataset, device)
    folders = [Path(config.outputs) / "field_embeddings" / one["digest"] for one in origin.values()]
    if texts:
        origin["text_vectors"] = {kind: folder.name for kind, folder in texts.items()}
    return Vectors(fields, _of_texts(config, texts), [*folders, *texts.values()], origin)


def _of_fields(
    config: TrainConfig, reader: str, dataset: Dataset, device: torch.device
) -> tuple[Tensor, dict[str, Any]]:
    if config.schema:
        raise UserError(
            f"schema={config.choice('schema')} changes the fields, and {reader}={config.choice(reader)} reads "
            "their names and entities as the dataset's YAML gives them. Use schema=none; "
            f"{reader}.source=permuted shuffles names"
        )
    from fieldctr.commands.field_vectors import vectors_for

    node, outputs = getattr(config, reader), Path(config.outputs)
    found, made = vectors_for(
        node, reader, dataset, config.dataset, config.encoder, outputs=outputs, device=device, seed=config.seed
    )
    origin = {"encoder": config.choice("encoder"), "source": node["source"], "digest": made.folder.name}
    return found, origin | {"history": made.account["history"], "cost": made.account["cost"]}


def _of_texts(config: TrainConfig, folders: dict[str, Path]) -> list[TextVectors]:
    if not folders or not config.enhancer:
        return []
    from fieldctr.commands.entity_vectors import read_texts

    return read_texts(folders, config.enhancer, seed=config.seed)
