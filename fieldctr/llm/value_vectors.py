"""One vector per frequent value of each field, made once: the encoder that SSFT tuned on the fields reads their values.

vectors.npy     (texts, E) float32, memory-mapped when read
features.npy    (values, 2) int32: field and id of each value that was read
rows.npy        (F + values,) int32: which of the vectors is a field's, and behind all fields a value's
account.json    samples of the texts, and what they cost

Source: an answer to an open question of LLaCTR (arXiv:2505.14057), which reads the fields' names alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from fieldctr.artifacts import digest
from fieldctr.config import EncoderConfig
from fieldctr.data.values import FieldValues
from fieldctr.disk import write_json
from fieldctr.llm.account import ACCOUNT, read_account
from fieldctr.llm.field_embeddings import tuned_encoder
from fieldctr.llm.parts import made_in_parts
from fieldctr.llm.prompts import LONGEST_VALUE
from fieldctr.llm.text_vectors import ROWS, VECTORS, WatchFor, encoded, gaussian, samples, write_vectors
from fieldctr.llm.texts import filled

VERSION = 1  # of encoding; raise it when equal settings give other vectors
FEATURES = "features.npy"


class ValueTexts(NamedTuple):
    """What is to be read of the values of all fields."""

    features: np.ndarray  # (values, 2) int32
    texts: list[str]  # of each


def frequent(
    values: Sequence[FieldValues], names: Sequence[str], template: str, *, min_rows: int, most_values: int
) -> ValueTexts:
    """The values of each field that at least `min_rows` train rows have, of these the most frequent ones."""
    features: list[tuple[int, int]] = []
    texts: list[str] = []
    for field, (known, name) in enumerate(zip(values, names, strict=True)):
        order = np.argsort(-known.counts.astype(np.int64), kind="stable")[:most_values]
        for i in order[known.counts[order] >= min_rows].tolist():
            features.append((field, i + 1))
            texts.append(filled(template, {"field": name, "value": known.texts[i][:LONGEST_VALUE]}))
    return ValueTexts(np.array(features, np.int32).reshape(-1, 2), texts)


def value_vectors(
    config: EncoderConfig,
    names: Sequence[str],
    found: ValueTexts,
    *,
    tuned: Path,
    epoch: int,
    root: Path,
    device: torch.device,
    watch: WatchFor,
) -> Path:
    """The folder below `root` with the vectors of the fields' names and of these values.

    `tuned` is the folder of the field embeddings of the same encoder and fields, whose tuning the encoder has after
    `epoch` epochs. A second call with an equal key loads no model; one after a kill goes on behind the last part.
    """
    key: dict[str, object] = {
        "version": VERSION,
        "field_embeddings": tuned.name,
        "epoch": epoch,
        "names": list(names),
        "texts": digest([found.texts, found.features.tolist()]),
        "window": config.max_tokens,
        "micro_batch": config.tuning.micro_batch,
    }
    each = [*names, *found.texts]

    def build(folder: Path, work: Path) -> None:
        if config.kind == "random":
            read = gaussian(each, config)
        else:
            models = root.parent / "models"
            read = encoded(
                each,
                lambda: tuned_encoder(config, tuned, epoch, device=device, converted=models),
                work,
                micro_batch=config.tuning.micro_batch,
                device=device,
                watch=watch,
            )
        num_vectors = write_vectors(folder, read.parts, read.rows)
        np.save(folder / FEATURES, found.features)
        account = {"values": len(found.texts), "vectors": num_vectors, "samples": samples(found.texts)}
        write_json(folder / ACCOUNT, account | {"cost": read.cost})

    return made_in_parts(root, key, build, doing="reads the same values")


class ValueVectorFiles(NamedTuple):
    """What a folder holds, the arrays memory-mapped."""

    features: np.ndarray  # (values, 2)
    rows: np.ndarray  # (F + values,)
    vectors: np.ndarray  # (texts, E)
    account: dict[str, Any]


def load(folder: Path) -> ValueVectorFiles:
    """The value vectors of a folder; UserError when a byte of it has changed since it was written."""
    account = read_account(folder)
    return ValueVectorFiles(*(np.load(folder / name, mmap_mode="c") for name in (FEATURES, ROWS, VECTORS)), account)
