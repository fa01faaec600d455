"""One vector per text, made once: a content-addressed cache in front of an encoder that reads every user or item.

vectors.npy    (texts, E) float32, memory-mapped when read
keys.npy       (entities, columns) int32: the ids and numbers by which a sample finds its entity
rows.npy       (entities,) int32: which of the vectors is an entity's; equal texts share one
account.json   samples of the texts, and what they cost

Source: KAR (arXiv:2306.10933), its knowledge encoding: a frozen encoder, the mean of its last layer over the tokens.
Differs: texts are read in batches of similar length; one that is longer than the model's window is cut, and counted.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from fieldctr import signals
from fieldctr.config import EncoderConfig
from fieldctr.data.dataset import Dataset
from fieldctr.data.entities import entities_of, feature_texts
from fieldctr.data.npy import NpyWriter, save_alone
from fieldctr.data.table import refused_if_changed
from fieldctr.disk import read_object, write_json
from fieldctr.llm import texts
from fieldctr.llm.account import ACCOUNT, read_account
from fieldctr.llm.cost import Clock
from fieldctr.llm.encoder import Encoder, load_encoder
from fieldctr.llm.field_embeddings import encoder_key, peak_mb
from fieldctr.llm.parts import made_in_parts
from fieldctr.llm.texts import Sentence
from fieldctr.llm.tokens import by_length, tokens_of
from fieldctr.llm.weights import model_files
from fieldctr.raw_files import stamps

VERSION = 1  # of encoding and pooling; raise it when equal settings give other vectors
VECTORS, KEYS, ROWS = "vectors.npy", "keys.npy", "rows.npy"
PROGRESS = "progress.json"  # in it, written behind each part: how many there are, and what they cost
PART_BATCHES = 16  # what a kill loses at most
SAMPLES = 5  # texts that the account shows


class Texts(NamedTuple):
    """What is to be read of the entities of one kind."""

    columns: list[int]
    keys: np.ndarray  # (entities, columns)
    texts: list[str]  # of each entity


class Writer(NamedTuple):
    """Who writes about the texts before they are read."""

    key: Mapping[str, object]  # everything that changes what is written, the texts apart
    write: Callable[[Sequence[str]], tuple[Mapping[str, str], Mapping[str, Any]]]  # answers by text, and an account


class Watch(Protocol):
    """Whom the encoding tells how far it is, in tokens."""

    def show(self, step: int, status: Callable[[float], str]) -> None: ...


WatchFor = Callable[[int, int, int], AbstractContextManager[Watch]]  # texts, all tokens, tokens read before


def entity_texts(dataset: Dataset, told: Sequence[Sentence]) -> Texts:
    """The texts of all entities that these sentences tell."""
    fields = [field for sentence in told for field in sentence.fields]
    entities = entities_of(dataset, fields)
    features = feature_texts(dataset, entities, fields)
    ends = np.cumsum([0, *(len(sentence.fields) for sentence in told)]).tolist()
    columns = [
        texts.written(sentence, features[start:end])
        for sentence, (start, end) in zip(told, pairwise(ends), strict=True)
    ]
    return Texts(*entities, [" ".join(row) for row in zip(*columns, strict=True)])


def text_vectors(
    config: EncoderConfig,
    dataset: Dataset,
    told: Sequence[Sentence],
    *,
    root: Path,
    device: torch.device,
    watch: WatchFor,
    writer: Writer | None = None,
    rows: Mapping[str, object] | None = None,
) -> Path:
    """The folder below `root` with the vectors of the entities that the sentences tell.

    With a `writer` the encoder reads behind each text what that one writes about it. A second call with an equal key
    reads no text and loads no model; one after a kill goes on behind the last part. `rows` says which rows of the table
    the dataset has, where it has not all of them.
    The encoder reads as it was published: its `tuning` is left out.
    """
    config = replace(config, tuning=replace(config.tuning, epochs=0))
    before = stamps(model_files(config.model, config.origin) if config.kind == "pretrained" else ())
    key: dict[str, object] = {
        "version": [VERSION, texts.VERSION],
        "table": dataset.digest,
        "sentences": [list(sentence) for sentence in told],
        "encoder": encoder_key(config, device, memo=root / ".digests.json"),
        "window": config.max_tokens,
        "micro_batch": config.tuning.micro_batch,
        **({"knowledge": writer.key} if writer else {}),
        **({"rows": rows} if rows else {}),
    }

    def build(folder: Path, work: Path) -> None:
        found = entity_texts(dataset, told)
        answers, more = writer.write(found.texts) if writer else ({}, {})
        found = found._replace(texts=[f"{text} {answers[text]}" if writer else text for text in found.texts])
        if config.kind == "random":
            write(folder, found, *gaussian(found.texts, config), knowledge=more)
            return
        with refused_if_changed(before):
            read = encoded(
                found.texts,
                lambda: load_encoder(config, device, converted=root.parent / "models"),
                work,
                micro_batch=config.tuning.micro_batch,
                device=device,
                watch=watch,
            )
        write(folder, found, *read, knowledge=more)

    return made_in_parts(root, key, build, doing="reads the same texts")


class Read(NamedTuple):
    """What the encoder gives: parts whose rows follow each other, where each text lies, and what it cost."""

    parts: Sequence[np.ndarray | Path]
    rows: np.ndarray  # (texts,)
    cost: dict[str, Any]


def encoded(
    each: Sequence[str],
    load: Callable[[], Encoder],
    work: Path,
    *,
    micro_batch: int,
    device: torch.device,
    watch: WatchFor,
) -> Read:
    """Encode the different texts among `each`, part by part into `work`; parts that are there are not made again."""
    different, place = np.unique(np.array(each, object), return_inverse=True)
    encoder = load()
    tokens = tokens_of(encoder.tokenizer, different.tolist(), encoder.max_tokens)
    batches = list(by_length(tokens.sizes, micro_batch))
    starts = range(0, len(batches), PART_BATCHES)
    done = read_object(work / PROGRESS) if (work / PROGRESS).exists() else None
    cost = {"parts": 0, "calls": 0, "tokens": 0, "seconds": 0.0, **(done or {})}
    total, spent = len(tokens.ids), cost["tokens"]
    with watch(len(different), total, spent) as watching:
        for part, start in enumerate(starts):
            if part < cost["parts"]:
                continue
            clock, vectors = Clock(device), []
            for batch in batches[start : start + PART_BATCHES]:
                signals.check()
                vectors.append(_embedded(encoder, tokens.of(batch)))
                watching.show(spent + encoder.tokens, lambda rate: f"{rate:,.0f} tokens/s")
            save_alone(work / _name(part), np.concatenate(vectors))
            cost |= {
                "parts": part + 1,
                "calls": cost["calls"] + len(vectors),
                "tokens": spent + encoder.tokens,
                "seconds": cost["seconds"] + clock.seconds(),
            }
            write_json(work / PROGRESS, cost)
    rows = np.empty(len(different), np.int32)
    rows[np.concatenate(batches)] = np.arange(len(different))
    said = {"clock": Clock(device).name, "peak_mb": round(peak_mb(device)), "cut": tokens.cut}
    told = {key: cost[key] for key in ("calls", "tokens")} | {"seconds": round(cost["seconds"], 2), **said}
    return Read([work / _name(part) for part in range(len(starts))], rows[place], told)


def write(
    folder: Path,
    found: Texts,
    parts: Sequence[np.ndarray | Path],
    rows: np.ndarray,
    cost: dict[str, Any],
    *,
    knowledge: Mapping[str, Any],
) -> None:
    """Leave vectors, keys, rows and account."""
    num_vectors = write_vectors(folder, parts, rows)
    np.save(folder / KEYS, found.keys)
    account = {
        "entities": len(found.texts),
        "vectors": num_vectors,
        "columns": found.columns,
        "samples": samples(found.texts),
        "cost": cost,
        **({"knowledge": knowledge} if knowledge else {}),
    }
    write_json(folder / ACCOUNT, account)


def write_vectors(folder: Path, parts: Sequence[np.ndarray | Path], rows: np.ndarray) -> int:
    """Leave vectors and rows; how many vectors there are."""
    num_vectors = 0
    with _writer(folder / VECTORS, parts[0]) as file:
        for part in parts:
            vectors = np.load(part) if isinstance(part, Path) else part
            file.append(vectors)
            num_vectors += len(vectors)
    np.save(folder / ROWS, rows.astype(np.int32))
    return num_vectors


def samples(each: Sequence[str]) -> list[str]:
    """A few of the texts, evenly from all."""
    return list(each[:: max(1, len(each) // SAMPLES)][:SAMPLES])


class TextVectorFiles(NamedTuple):
    """What a folder holds, the arrays memory-mapped."""

    vectors: np.ndarray  # (texts, E)
    keys: np.ndarray  # (entities, columns)
    rows: np.ndarray  # (entities,)
    account: dict[str, Any]


def load(folder: Path) -> TextVectorFiles:
    """The text vectors of a folder; UserError when a byte of it has changed since it was written."""
    account = read_account(folder)
    return TextVectorFiles(*(np.load(folder / name, mmap_mode="c") for name in (VECTORS, KEYS, ROWS)), account)


def gaussian(each: Sequence[str], config: EncoderConfig) -> Read:
    """Vectors without a model, one for each text: what any other has to beat."""
    different, place = np.unique(np.array(each, object), return_inverse=True)
    vectors = np.random.default_rng(config.seed).standard_normal((len(different), config.width), np.float32)
    return Read([vectors], place, {})


def _embedded(encoder: Encoder, tokens: list[list[int]]) -> np.ndarray:
    with torch.no_grad():
        return encoder.embed(tokens).cpu().numpy()


def _writer(path: Path, first: np.ndarray | Path) -> NpyWriter:
    shape = np.load(first, mmap_mode="r").shape if isinstance(first, Path) else first.shape
    return NpyWriter(path, dtype=np.float32, columns=shape[1])


def _name(part: int) -> str:
    return f"{part:06d}.npy"
