"""From a prepared table and an encoder's node to the vectors of its users and items: what `texts` and `train` share."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from fieldctr.commands.field_vectors import settled
from fieldctr.config import EncoderConfig, checked, parse
from fieldctr.data.dataset import Dataset
from fieldctr.data.prepare import entities
from fieldctr.errors import UserError
from fieldctr.llm.encoder import with_dtype
from fieldctr.llm.knowledge import Author, KnowledgeConfig, checked_prompt, knowledge
from fieldctr.llm.knowledge import load as load_answers
from fieldctr.llm.placebo import TextSource, reader_of_texts, stand_in_texts
from fieldctr.llm.text_vectors import Writer, load, text_vectors
from fieldctr.llm.texts import Sentence, sentences
from fieldctr.nn.text_lookup import TextVectors
from fieldctr.schema import Schema
from fieldctr.training.progress import Progress


def told(kind: str, dataset: Dataset, dataset_node: Mapping[str, Any]) -> list[Sentence]:
    """How the dataset's node has an entity of this kind told; UserError for one that it has not."""
    known = entities(dataset_node.get("entities"), dataset_node["fields"])
    return sentences(kind, known, dataset_node.get("text_template"), dataset.schema)


class Reading(NamedTuple):
    """Who reads the texts of entities, by the nodes of a configuration, and what stands for their meaning."""

    encoder: Mapping[str, Any]
    source: TextSource = "text"
    knowledge: Mapping[str, Any] | None = None  # empty where nothing is written about them


def embed_entities(
    kind: str,
    dataset: Dataset,
    dataset_node: Mapping[str, Any],
    reading: Reading,
    *,
    outputs: Path,
    device: torch.device,
    rows: Mapping[str, object] | None = None,
) -> Path:
    """The folder with the vectors of the dataset's entities of this kind, made now if they are not there.

    `rows` says which rows of the prepared table the dataset has, where it has not all of them.
    """
    config = reader_of_texts(settled(parse(EncoderConfig, reading.encoder, "encoder"), device), reading.source)
    return text_vectors(
        config,
        dataset,
        told(kind, dataset, dataset_node),
        root=outputs / "text_vectors",
        rows=rows,
        device=device,
        watch=lambda texts, tokens, before: watched(kind, texts, tokens, before),
        writer=writer_of(reading, kind, outputs=outputs, device=device) if reading.knowledge else None,
    )


def author_of(knowledge_node: Mapping[str, Any], kind: str, device: torch.device) -> Author:
    """Who the node `knowledge` has write about entities of this kind, and what it is asked."""
    config = parse(KnowledgeConfig, knowledge_node, "knowledge")
    prompt = checked_prompt(config.prompts, kind)
    return Author(with_dtype(config.writer, device), kind, prompt, config.new_tokens)


def writer_of(reading: Reading, kind: str, *, outputs: Path, device: torch.device) -> Writer:
    """Who writes about entities of this kind before they are read; its answers are kept below `outputs`."""
    author, root = author_of(reading.knowledge or {}, kind, device), outputs / "knowledge"

    def write(texts: Sequence[str]) -> tuple[dict[str, str], dict[str, Any]]:
        folder = knowledge(
            author,
            texts,
            root=root,
            device=device,
            watch=lambda count, tokens, before: watched(f"{kind} to write about", count, tokens, before),
        )
        answers, account = load_answers(folder)
        return answers, {"digest": folder.name, "cost": account["cost"], "samples": account["samples"]}

    return Writer(author.key(device, root / ".digests.json"), write)


def watched(kind: str, texts: int, tokens: int, before: int) -> Progress:
    """Say what is to come, before the first batch; how long it will take is known after a few."""
    progress = Progress(total_steps=tokens, step=before, batch_size=1)
    progress.unit = "tokens"
    behind = f", of which an earlier call read {before:,}" if before else ""
    progress.say(
        f"texts of {kind}: {texts:,}, {tokens:,} tokens{behind}. What comes of them is kept; the next call takes none"
    )
    return progress


def drawn_texts(schema: Schema) -> list[TextVectors]:
    """Random vectors of a small language model's width for the first and the last field, to measure what reads some.

    Their hashes are as large as real ones, and in order as they are made: fake tensors have no numbers to look at.
    """
    factor = torch.tensor([2**60 + 1])
    return [
        TextVectors(kind, [column], factor, torch.arange(4) * factor, torch.arange(4), vectors)
        for kind, column, vectors in (
            ("user", 0, torch.randn(4, 384)),
            ("item", schema.num_columns - 1, torch.randn(4, 384)),
        )
    ]


def text_vector_folders(
    dataset: Dataset,
    dataset_node: Mapping[str, Any],
    reading: Reading,
    *,
    outputs: Path,
    device: torch.device,
) -> dict[str, Path]:
    """By kind of the dataset's entities the folder with their vectors, made now if it is not there."""
    if not reading.encoder:
        raise UserError("the enhancer reads texts but there is no encoder: add encoder=untuned")
    kinds = entities(dataset_node.get("entities"), dataset_node["fields"])
    if not any(kinds.values()):
        raise UserError(
            f"the enhancer reads texts of users and items, and dataset '{dataset_node['name']}' does not say what they "
            "are. Give its YAML the fields that describe them, such as entities: {user: [age, gender], item: [title]}"
        )
    return {
        kind: embed_entities(kind, dataset, dataset_node, reading, outputs=outputs, device=device)
        for kind, fields in kinds.items()
        if fields
    }


def read_texts(folders: Mapping[str, Path], enhancer_node: Mapping[str, Any], *, seed: int) -> list[TextVectors]:
    """What the enhancer's node asks of these folders: the vectors, or the placebo that its `source` names."""
    return list(_read(folders, text_source(enhancer_node), seed))


def text_source(enhancer_node: Mapping[str, Any]) -> TextSource:
    """What stands for the meaning of the texts, as the enhancer's node says it."""
    return checked(enhancer_node.get("source"), TextSource, "enhancer.source")


def _read(folders: Mapping[str, Path], source: TextSource, seed: int) -> Iterator[TextVectors]:
    for kind, folder in folders.items():
        found = load(folder)
        keys, rows, vectors = (torch.from_numpy(np.asarray(one)) for one in (found.keys, found.rows, found.vectors))
        vectors, rows = stand_in_texts(vectors, rows, source, seed=seed)
        yield TextVectors.of(kind, found.account["columns"], keys, rows, vectors)
