"""From a prepared table and an encoder's node to the vectors of its fields' frequent values, as `train` reads them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fieldctr.commands.entity_vectors import watched
from fieldctr.commands.field_vectors import settled, vectors_for
from fieldctr.config import EncoderConfig, Positive, checked, parse
from fieldctr.data.dataset import Dataset
from fieldctr.data.values import FieldValues, field_values
from fieldctr.errors import UserError
from fieldctr.llm.field_embeddings import FieldEmbeddings
from fieldctr.llm.placebo import Source, of_other_fields, stand_in_texts
from fieldctr.llm.value_vectors import frequent, load, value_vectors
from fieldctr.nn.value_lookup import ValueVectors
from fieldctr.schema import Schema

DRAWN_VALUES = 32  # of a field, of which every other has a vector: more cost memory and show nothing else


def drawn_values(schema: Schema) -> ValueVectors:
    """Random vectors of a small language model's width for the fields and every other value, to measure what reads."""
    features = [
        (i, k)
        for i, field in enumerate(schema.fields)
        if not field.vector
        for k in range(1, min(field.vocab_size, DRAWN_VALUES))
    ]
    read = torch.tensor(features[::2], dtype=torch.int64).view(-1, 2)
    count = schema.num_fields + len(read)
    return ValueVectors(read, torch.arange(count), torch.randn(count, 384))


def value_vector_folder(
    enhancer_node: Mapping[str, Any],
    dataset: Dataset,
    dataset_node: Mapping[str, Any],
    encoder_node: Mapping[str, Any],
    *,
    outputs: Path,
    device: torch.device,
) -> tuple[Path, FieldEmbeddings]:
    """The vectors that the enhancer's node asks for, made now if they are not there, and SSFT's of the same encoder."""
    text = value_text(enhancer_node)
    least, most = (checked(enhancer_node.get(key), Positive, f"enhancer.{key}") for key in ("min_rows", "most_values"))
    _, tuned = vectors_for(
        enhancer_node, "enhancer", dataset, dataset_node, encoder_node, outputs=outputs, device=device, seed=0
    )
    names = tuned.account["fields"]
    found = frequent(readable(dataset), names, text, min_rows=least, most_values=most)
    folder = value_vectors(
        settled(parse(EncoderConfig, encoder_node, "encoder"), device),
        names,
        found,
        tuned=tuned.folder,
        epoch=chosen_epoch(enhancer_node, tuned),
        root=outputs / "value_vectors",
        device=device,
        watch=lambda texts, tokens, before: watched("values", texts, tokens, before),
    )
    return folder, tuned


def chosen_epoch(enhancer_node: Mapping[str, Any], tuned: FieldEmbeddings) -> int:
    """After how many epochs of SSFT the encoder is to read."""
    if enhancer_node.get("source") == "untuned":
        return 0
    epoch = enhancer_node.get("epoch")
    return len(tuned.vectors) - 1 if epoch is None else int(epoch)


def value_text(enhancer_node: Mapping[str, Any]) -> str:
    """What is read of a value; UserError for a template that does not say it."""
    text = checked(enhancer_node.get("value_text"), str, "enhancer.value_text")
    named = re.findall(r"\{[^{}]*\}", text)
    if named.count("{value}") != 1 or set(named) - {"{value}", "{field}"}:
        raise UserError(
            f"enhancer.value_text={text} is not allowed: expected a text with {{value}} once, and {{field}} if it is "
            "to say of what, such as '{field} is {value}'"
        )
    return text


def readable(dataset: Dataset) -> list[FieldValues]:
    """The values of each field that a language model can read; a history has those of its item."""
    schema, values = dataset.schema, field_values(dataset.folder)
    none = FieldValues([], np.empty(0, np.int64))
    return [
        values[schema.index(field.shares or field.name)] if field.text and not field.vector else none
        for field in schema.fields
    ]


def read_values(folder: Path, enhancer_node: Mapping[str, Any], *, seed: int) -> ValueVectors:
    """What the enhancer's node asks of the folder: the vectors, or the placebo that its `source` names."""
    source: Source = checked(enhancer_node.get("source"), Source, "enhancer.source")
    found = load(folder)
    features, rows, vectors = (torch.from_numpy(np.asarray(one)) for one in (found.features, found.rows, found.vectors))
    features, rows = features.long(), rows.long()
    if source == "permuted":
        rows = of_other_fields(features[:, 0], rows, len(rows) - len(features), seed=seed)
    else:
        vectors, rows = stand_in_texts(vectors, rows, source, seed=seed)
    return ValueVectors(features, rows, vectors)
