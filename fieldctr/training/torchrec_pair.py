"""Which TorchRec goes with which torch, and what does not go with tables in shards; read without TorchRec."""

from importlib import metadata

from fieldctr.config import EmbeddingConfig, OptimizerConfig, TrainerConfig
from fieldctr.errors import UserError

ENGINE = "embedding.engine=torchrec"
PAIR = {"torch": ("2.14", "torch"), "FBGEMM": ("1.9", "fbgemm-gpu-cpu", "fbgemm-gpu"), "TorchRec": ("1.9", "torchrec")}
WANTED = ", ".join(f"{name} {version}" for name, (version, *_) in PAIR.items())  # one FBGEMM is built for one torch
LOCK = "scripts/requirements-torchrec.lock"


def installed() -> dict[str, str]:
    """The packages of the pair that are here, with their versions."""
    found = {}
    for package in [package for _, *packages in PAIR.values() for package in packages]:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def pair_fits() -> bool:
    """Whether the versions that are here go together."""
    here = installed()
    return all(
        any(here.get(package, "").startswith(f"{version}.") for package in packages)
        for version, *packages in PAIR.values()
    )


def refuse_misfits(embedding: EmbeddingConfig, trainer: TrainerConfig, optimizer: OptimizerConfig, world: int) -> None:
    """UserError where the libraries are not here, or other settings do not go with shards."""
    if embedding.engine != "torchrec":
        return
    if trainer.dry_run:
        raise UserError(f"trainer.dry_run=true counts plain tables, not those of {ENGINE}. Set embedding.engine=torch")
    if not pair_fits():
        here = ", ".join(f"{name} {version}" for name, version in installed().items())
        raise UserError(
            f"{ENGINE} takes {WANTED}, and here is {here}. Make an environment of its own of {LOCK}, as "
            "scripts/README.md says, or set embedding.engine=torch"
        )
    if world == 1:
        raise UserError(
            f"{ENGINE} shards tables among the processes that torchrun starts, and here is one. Call "
            "torchrun --nproc-per-node=2 -m fieldctr train ..., or set embedding.engine=torch"
        )
    cures = {
        "optimizer=rowwise_adagrad": optimizer.embedding_rule == "rowwise_adagrad",
        "trainer.clip_norm=null": trainer.clip_norm is None,
        "trainer.ema_decay=null": trainer.ema_decay is None,
        "trainer.compile=false": not trainer.compile,
    }
    if missing := [cure for cure, done in cures.items() if not done]:
        raise UserError(
            f"{ENGINE} moves rows by row-wise Adagrad within the backward pass, before the norm of all gradients is "
            f"known, keeps no averages of rows, and was not tried with compiled code. Add {' '.join(missing)}"
        )
