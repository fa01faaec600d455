"""fieldctr: config-driven CTR experiments around the field.

From Python: `train(compose("train", ["model=fat", "dataset=coupon"]))`; see fieldctr/README.md.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fieldctr.commands.compare import compare
    from fieldctr.commands.evaluate import evaluate
    from fieldctr.commands.finished import FinishedRun, load_run
    from fieldctr.commands.launch import compose
    from fieldctr.commands.prepare import prepare
    from fieldctr.commands.search import search
    from fieldctr.commands.study import study
    from fieldctr.commands.train import train
    from fieldctr.errors import UserError

__version__ = "0.1.0"
__all__ = [
    "FinishedRun",
    "UserError",
    "compare",
    "compose",
    "evaluate",
    "load_run",
    "prepare",
    "search",
    "study",
    "train",
]
HOMES = {
    "compose": "commands.launch",
    "prepare": "commands.prepare",
    "train": "commands.train",
    "evaluate": "commands.evaluate",
    "search": "commands.search",
    "study": "commands.study",
    "compare": "commands.compare",
    "load_run": "commands.finished",
    "FinishedRun": "commands.finished",
    "UserError": "errors",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, and no more: `fieldctr --help` needs neither torch nor Hydra."""
    if name not in HOMES:
        raise AttributeError(f"module 'fieldctr' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(f"fieldctr.{HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
