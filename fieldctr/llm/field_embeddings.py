"""One vector per field, made once: a content-addressed cache in front of SSFT.

vectors.safetensors   (epochs + 1, F, E), the first before tuning
adapters.safetensors  the weights of LoRA after each epoch, as EPOCH/NAME: the tuned encoder can read other texts
account.json          what was asked, what it cost, how well the tuned model tells fields apart,
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fieldctr.artifacts import cached, digest
from fieldctr.config import EncoderConfig
from fieldctr.data.table import refused_if_changed
from fieldctr.disk import write_json
from fieldctr.errors import UserError
from fieldctr.llm.account import ACCOUNT, read_account
from fieldctr.llm.cost import Alternatives, Clock, alternatives
from fieldctr.llm.encoder import Encoder, arithmetic, load_encoder, with_dtype
from fieldctr.llm.prompts import Prompts
from fieldctr.llm.ssft import Tuning, Watch, adapter, closeness, num_steps, tune
from fieldctr.llm.weights import model_files
from fieldctr.memory import peak_resident_mb
from fieldctr.raw_files import digests, stamps

VERSION = 1  # of prompts, tuning and pooling; raise it when equal settings give other vectors
VECTORS, ADAPTERS = "vectors.safetensors", "adapters.safetensors"
LIBRARIES = ("torch", "transformers", "tokenizers", "peft")

WatchFor = Callable[[int], AbstractContextManager[Watch]]  # number of steps -> who watches them


class FieldEmbeddings(NamedTuple):
    """What is cached."""

    folder: Path
    vectors: Tensor  # (epochs + 1, F, E)
    account: dict[str, Any]


def field_embeddings(
    config: EncoderConfig,
    prompts: Prompts,
    *,
    root: Path,
    device: torch.device,
    others: Callable[[], Alternatives],
    watch: WatchFor,
) -> FieldEmbeddings:
    """The field vectors of these prompts below `root`; a second call with an equal key loads no model."""
    before = stamps(model_files(config.model, config.origin) if config.kind == "pretrained" else ())
    key = cache_key(config, prompts, device, memo=root / ".digests.json")

    def build(folder: Path) -> None:
        if config.kind == "random":
            save(folder, gaussian(len(prompts.fields), config), prompts, {})
            return
        with refused_if_changed(before):
            found = tune_encoder(
                config, prompts, device=device, converted=root.parent / "models", others=others, watch=watch
            )
        save(folder, *found)

    return load(cached(root, key, build))


def cache_key(config: EncoderConfig, prompts: Prompts, device: torch.device, *, memo: Path) -> dict[str, object]:
    """Everything that changes the vectors: texts rather than the settings they come from, bytes rather than paths."""
    if config.kind == "random":
        return {"version": VERSION, "fields": prompts.fields, **encoder_key(config, device, memo=memo)}
    tuning = asdict(config.tuning) if config.tuning.epochs else {"epochs": 0, "micro_batch": config.tuning.micro_batch}
    return {
        "version": VERSION,
        "fields": prompts.fields,
        "prompts": digest([prompts.train, prompts.heldout]),
        "tuning": tuning,
        **encoder_key(config, device, memo=memo),
    }


def encoder_key(config: EncoderConfig, device: torch.device, *, memo: Path) -> dict[str, object]:
    """Everything that changes an encoder's vectors before it is tuned, the texts apart."""
    if config.kind == "random":
        return {"kind": config.kind, "width": config.width, "seed": config.seed}
    config = with_dtype(config, device)
    return {
        "kind": config.kind,
        "model": digests(model_files(config.model, config.origin), memo) if config.kind == "pretrained" else [],
        "encoder": {key: getattr(config, key) for key in ("pooling", "attention", "dtype", "seed")},
        "arithmetic": arithmetic(config.dtype, device),
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
        "device": device.type,
        **({"weights": config.weights} if config.weights != "published" else {}),
    }


def gaussian(num_fields: int, config: EncoderConfig) -> Tuning:
    """Vectors without a model: what any other has to beat."""
    generator = torch.Generator().manual_seed(config.seed)
    vectors = torch.randn(1, num_fields, config.width, generator=generator)
    return Tuning(vectors, [{"epoch": 0, **closeness(vectors[0])}])


def tune_encoder(
    config: EncoderConfig,
    prompts: Prompts,
    *,
    device: torch.device,
    converted: Path,
    others: Callable[[], Alternatives],
    watch: WatchFor,
) -> tuple[Tuning, Prompts, dict[str, Any]]:
    """Load the encoder and tune it on the prompts; gives also what that cost."""
    loading = Clock(device)
    encoder = load_encoder(config, device, converted=converted)
    load_s, tuning = loading.seconds(), Clock(device)
    with watch(num_steps(config.tuning, len(prompts.train))) as shown:
        found = tune(encoder, prompts, config.tuning, seed=config.seed, watch=shown)
    seconds = tuning.seconds()
    cost = {
        "calls": encoder.calls,
        "tokens": encoder.tokens,
        "load_s": round(load_s, 2),
        "tune_s": round(seconds, 2),
        "clock": tuning.name,
        "peak_mb": round(peak_mb(device)),
    }
    size = {"prompts": len(prompts.train), "seconds": seconds}
    return found, prompts, cost | alternatives(encoder, others(), prompts.fields, config.tuning, **size)


def peak_mb(device: torch.device) -> float:
    """The most memory that this process took: the GPU's where it works on one."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else peak_resident_mb()


def save(folder: Path, found: Tuning, prompts: Prompts, cost: dict[str, Any]) -> None:
    save_file({"vectors": found.vectors.contiguous()}, folder / VECTORS)
    trained = {f"{i}/{name}": part for i, one in enumerate(found.adapters, 1) for name, part in one.items()}
    if trained:
        save_file(trained, folder / ADAPTERS)
    account = {
        "fields": prompts.fields,
        "prompts": len(prompts.train),
        "heldout": len(prompts.heldout),
        "history": found.history,
        "cost": cost,
    }
    write_json(folder / ACCOUNT, account)


def load(folder: Path) -> FieldEmbeddings:
    """What is cached in the folder; UserError when a byte of it has changed since."""
    account = read_account(folder)
    return FieldEmbeddings(folder, load_file(folder / VECTORS)["vectors"], account)


def tuned_encoder(config: EncoderConfig, folder: Path, epoch: int, *, device: torch.device, converted: Path) -> Encoder:
    """The encoder as it was after `epoch` epochs of the SSFT that left `folder`; after none as it was published."""
    if not epoch:
        config = replace(config, tuning=replace(config.tuning, epochs=0))
        return load_encoder(config, device, converted=converted)
    if not (folder / ADAPTERS).exists():
        raise UserError(
            f"{folder} is of an earlier version, which kept no tuned weights, and they are to read values. Remove it, "
            "and call again: it is made anew"
        )
    encoder, saved = load_encoder(config, device, converted=converted), load_file(folder / ADAPTERS)
    with torch.no_grad():
        for name, weight in adapter(encoder).items():
            weight.copy_(saved[f"{epoch}/{name}"])
    return encoder
