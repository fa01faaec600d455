"""The engine that a study's configuration names, with as many workers as the machine has room for."""

from pathlib import Path

from fieldctr.cores import usable_cores
from fieldctr.errors import UserError
from fieldctr.studies.engines.local import Local, gpus
from fieldctr.studies.engines.ray import Ray
from fieldctr.studies.engines.slurm import Slurm
from fieldctr.studies.jobs import Engine
from fieldctr.studies.plan import EngineConfig

MANY = 64  # jobs that a cluster is given at a time: it keeps those waiting that find no room


def engine(config: EngineConfig, work: str, *, logs: Path) -> Engine:
    """`work` is what a worker calls, as module:function. UserError where the engine's package is missing."""
    devices = gpus() if config.gpus == "auto" else []
    options = dict(config.options)
    if options and config.name != "slurm":
        raise UserError(f"engine.options are for engine.name=slurm, not for {config.name}")
    if config.name == "local":
        slots = len(devices) or usable_cores() if config.workers == "auto" else config.workers
        return Local(work, slots=slots, gpus=devices)
    slots = MANY if config.workers == "auto" else config.workers
    if config.name == "ray":
        return Ray(work, slots=slots, num_gpus=1.0 if devices else 0.0)
    return Slurm(work, slots=slots, logs=logs, cluster=options.pop("cluster", "slurm"), options=options)
