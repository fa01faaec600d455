"""`fieldctr check model=mine`: the contract of a backbone or an enhancer, run on a small made-up table."""

import time
from typing import Any

import torch

from fieldctr.catalog import without_own
from fieldctr.commands.entity_vectors import drawn_texts
from fieldctr.commands.field_vectors import drawn
from fieldctr.commands.launch import compose
from fieldctr.commands.spelling import refuse_spelling
from fieldctr.commands.value_vectors import drawn_values
from fieldctr.config import TrainConfig, parse
from fieldctr.errors import UserError, nearest
from fieldctr.models.contract import CONTRACTS, Make, check
from fieldctr.models.ctr_model import CTRModel, build_model
from fieldctr.schema import Schema

KEYS = ("model", "enhancer", "ablation", "embedding_dim")  # of the configuration of `train`
BACKBONE = "model=fm"  # what an enhancer is tried with
USAGE = """usage: fieldctr check model=NAME [enhancer=NAME] [embedding_dim=N] [model.KEY=VALUE ...]
                      [--config-dir DIR] [trust=PACKAGE]

Builds it on a small made-up table and looks whether it keeps what every backbone and enhancer promises; says in words
what is broken, and exits with 1 then. An enhancer is tried with model=fm unless another one is named. For example:

  fieldctr check model=fat
  fieldctr check --config-dir my trust=mymodels model=mine
"""


def main(*arguments: str) -> None:
    """Print a line for each contract; exit with 1 when one is broken."""
    if not arguments or {"--help", "-h"} & {*arguments}:
        print(f"{USAGE}\n{chr(10).join(f'  {one.name:24}{one.promise}' for one in CONTRACTS)}")
        return
    words, own = without_own(arguments)
    refuse_spelling(words, (), ())
    config = composed(words, own)
    print(f"{config.model['_target_']}{_with(config.enhancer)}, on a made-up table of 7 fields", flush=True)
    broken, looked = 0, 0
    torch.set_num_threads(1)
    began = time.perf_counter()
    for contract, told in check(maker(config)):
        looked += 1
        broken += bool(told)
        print(f"{'broken' if told else 'kept':8}{contract.name:24}{told or contract.promise}", flush=True)
    left = [contract.name for contract in CONTRACTS[looked:]]
    rest = f"; not looked at before that is mended: {', '.join(left)}" if left else ""
    print(f"\n{broken} of {len(CONTRACTS)} broken{rest} ({time.perf_counter() - began:.0f} s)")
    if broken:
        raise SystemExit(1)


def composed(words: list[str], own: str | None) -> TrainConfig:
    """The configuration that `fieldctr train` would use for these words."""
    for word in words:
        key = word.partition("=")[0].lstrip("+~").partition(".")[0]
        if key not in KEYS:
            raise UserError(f"check takes no '{key}'. {nearest(key, KEYS)}All: {', '.join(KEYS)}")
    keys = [word.partition("=")[0] for word in words]
    if not {"model", "enhancer"} & {*keys}:
        raise UserError("check needs model=NAME or enhancer=NAME. All: fieldctr list models enhancers")
    chosen = [] if "model" in keys else [BACKBONE]
    return parse(TrainConfig, compose("train", [*chosen, *words, "tuned=none"], config_dir=own), "")


def maker(config: TrainConfig) -> Make:
    """Builds the model of a configuration on any table; where a language model's vectors are read, on random ones."""

    def make(schema: Schema, seed: int) -> CTRModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            vectors, texts, values = drawn(schema.num_fields), drawn_texts(schema), drawn_values(schema)
        return build_model(
            schema,
            dim=config.embedding_dim,
            model=config.model,
            enhancer=config.enhancer,
            seed=seed,
            field_embeddings=vectors,
            text_vectors=texts,
            value_vectors=values,
        )

    return make


def _with(enhancer: dict[str, Any] | None) -> str:
    return f" with {enhancer['_target_']}" if enhancer else ""
