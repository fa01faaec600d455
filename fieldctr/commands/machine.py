"""The machine as a command's configuration wants it."""

from pathlib import Path

from fieldctr.config import RuntimeConfig, TrainerConfig
from fieldctr.training.runtime import Runtime


def start_runtime(config: RuntimeConfig, trainer: TrainerConfig, *, outputs: Path) -> Runtime:
    """Where and how to compute; what is measured of the machine is remembered below `outputs`."""
    return Runtime.start(
        config, precision=trainer.precision, deterministic=trainer.deterministic, cache=outputs / "machine"
    )
