"""The stage before the training that enhancer=ctrl is: made once below outputs/ctrl, and read by every run.

A folder holds the weights that the stage has moved, and account.json: how it went, and what it cost. It is named by all
that decides these weights. A run's seed, optimizer and trainer do not: they are the second stage's.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fieldctr.commands.entity_vectors import Reading, embed_entities, read_texts, told
from fieldctr.commands.field_vectors import settled
from fieldctr.config import EncoderConfig, TrainConfig, build, checked, parse
from fieldctr.data.dataset import Dataset, Split
from fieldctr.disk import write_json
from fieldctr.enhancers.ctrl import CTRL
from fieldctr.errors import UserError
from fieldctr.llm import texts as sentences
from fieldctr.llm.account import ACCOUNT
from fieldctr.llm.cost import Clock
from fieldctr.llm.field_embeddings import encoder_key, peak_mb
from fieldctr.llm.parts import made_in_parts
from fieldctr.llm.placebo import TextSource, reader_of_texts
from fieldctr.llm.text_tower import TextTower, text_tower
from fieldctr.llm.text_vectors import entity_texts
from fieldctr.llm.text_vectors import load as load_texts
from fieldctr.llm.texts import ROW
from fieldctr.models.ctr_model import KINDS, CTRModel, build_model
from fieldctr.training.align import FrozenTexts, MaskedRows, align
from fieldctr.training.progress import Progress
from fieldctr.trust import own_code

VERSION = 1  # of the stage; raise it when equal settings give other weights
WEIGHTS = "moved.safetensors"


@dataclass(frozen=True)
class Stage:
    """One first stage: of these rows, with these settings."""

    config: TrainConfig
    settings: CTRL
    dataset: Dataset  # of train the rows that it reads, of valid and test none
    rows: dict[str, object]  # which these are
    vectors: Mapping[str, Tensor]  # field embeddings that the model reads
    device: torch.device

    @property
    def outputs(self) -> Path:
        return Path(self.config.outputs)

    @property
    def source(self) -> TextSource:
        """What stands for the meaning of the texts, where it reads some."""
        return checked(self.settings.source, TextSource, "enhancer.source")


def stage_of(config: TrainConfig, dataset: Dataset, vectors: Mapping[str, Tensor], device: torch.device) -> Stage:
    """The first stage that a run of this configuration asks for."""
    settings: CTRL = build(config.enhancer or {}, "enhancer", kind=KINDS["enhancer"])
    train, rows = dataset.train, min(settings.max_rows or len(dataset.train), len(dataset.train))
    if rows < len(train):
        train = train.sample(rows, seed=settings.seed)
    which: dict[str, object] = {"split": "train", "rows": rows, "seed": settings.seed}
    if config.train_rows != "all":  # of a sample that the run's seed drew
        which |= {"of": config.train_rows, "of_seed": config.seed}
    empty = Split.empty(dataset.schema)
    return Stage(config, settings, replace(dataset, train=train, valid=empty, test=empty), which, vectors, device)


def made(stage: Stage) -> Path:
    """The folder of the stage's weights, made now if it is not there; another process that makes it is waited for."""
    encoder = _encoder(stage)

    def build(folder: Path, _: Path) -> None:
        _build(folder, stage, encoder)

    return made_in_parts(stage.outputs / "ctrl", _key(stage, encoder), build, doing="makes the same stage")


def _encoder(stage: Stage) -> EncoderConfig | None:
    """The language model that the stage reads texts with; none where it reads none."""
    if stage.settings.source == "views":
        return None
    if not stage.config.encoder:
        raise UserError("the enhancer reads texts but there is no encoder: add encoder=untuned")
    if not told(ROW, stage.dataset, stage.config.dataset):
        raise UserError(
            f"the enhancer reads texts of rows, and no field of dataset '{stage.dataset.name}' can be read: give some "
            "a text in its YAML, such as user_id: {text: user id}"
        )
    return reader_of_texts(settled(parse(EncoderConfig, stage.config.encoder, "encoder"), stage.device), stage.source)


def _key(stage: Stage, encoder: EncoderConfig | None) -> dict[str, object]:
    """All that decides the weights that the stage moves."""
    config, key = stage.config, dict[str, object]()
    if encoder is not None:
        key = {
            "texts": sentences.VERSION,
            "sentences": [list(sentence) for sentence in told(ROW, stage.dataset, config.dataset)],
            "encoder": encoder_key(encoder, stage.device, memo=stage.outputs / "text_vectors/.digests.json"),
            "window": encoder.max_tokens,
            "lora": asdict(encoder.tuning) if stage.settings.text_tower == "trained" else None,
        }
    return key | {
        "version": VERSION,
        "table": stage.dataset.digest,
        "rows": stage.rows,
        "settings": asdict(stage.settings),
        "model": config.model,
        "dim": config.embedding_dim,
        "id_dropout": config.id_dropout,
        "vectors": {name: hashlib.sha256(each.numpy().tobytes()).hexdigest() for name, each in stage.vectors.items()},
        "code": {name: one["sha256"] for name, one in own_code(config.model).items()},
        "torch": torch.__version__,
        "device": stage.device.type,
    }


def _build(into: Path, stage: Stage, encoder: EncoderConfig | None) -> None:
    """Draw the model by the stage's own seed, move it, and leave what has moved and what that cost."""
    config, settings = stage.config, stage.settings
    with torch.random.fork_rng(devices=[]):
        model = build_model(
            stage.dataset.schema,
            dim=config.embedding_dim,
            model=config.model,
            enhancer=None,
            seed=settings.seed,
            field_embeddings=stage.vectors,
            id_dropout=config.id_dropout,
        )
        torch.default_generator.manual_seed(settings.seed)
        texts, cost = _texts(stage, model, encoder)
        clock = Clock(stage.device)
        found = align(model, texts, stage.dataset.train, settings, device=stage.device, watch=_watched(settings))
    if isinstance(texts, TextTower):
        cost |= {"calls": texts.encoder.calls, "tokens": texts.encoder.tokens}
    cost |= {"align_s": round(clock.seconds(), 2), "clock": clock.name, "peak_mb": round(peak_mb(stage.device))}
    save_file(found.moved, into / WEIGHTS)
    account = {"rows": stage.rows["rows"], "steps": found.steps, "history": found.history, "cost": cost}
    write_json(into / ACCOUNT, account)


def _texts(stage: Stage, model: CTRModel, encoder: EncoderConfig | None) -> tuple[nn.Module, dict[str, Any]]:
    """What the model is aligned with, and what the language model has cost so far."""
    settings, dataset, schema = stage.settings, stage.dataset, stage.dataset.schema
    cost: dict[str, Any] = {"calls": 0, "tokens": 0, "read_s": 0.0}
    if encoder is None:
        return MaskedRows(model, schema, settings.mask), cost
    if settings.text_tower == "trained":
        found = entity_texts(dataset, told(ROW, dataset, stage.config.dataset))
        tower = text_tower(
            encoder,
            found,
            stage.source,
            num_columns=schema.num_columns,
            device=stage.device,
            models=stage.outputs / "models",
            seed=settings.seed,
        )
        return tower, cost
    folder = embed_entities(
        ROW,
        dataset,
        stage.config.dataset,
        Reading(stage.config.encoder, stage.source),
        outputs=stage.outputs,
        device=stage.device,
        rows=stage.rows,
    )
    read = load_texts(folder).account["cost"]
    cost |= {"calls": read["calls"], "tokens": read["tokens"], "read_s": read["seconds"]} if read else {}
    (vectors,) = read_texts({ROW: folder}, {"source": stage.source}, seed=settings.seed)
    return FrozenTexts(vectors, schema.num_columns), cost


def _watched(settings: CTRL) -> Callable[[int], Progress]:
    return lambda steps: Progress(total_steps=steps, step=0, batch_size=settings.batch_size)
