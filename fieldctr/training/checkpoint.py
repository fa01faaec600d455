"""A fit's state on disk: checkpoint/step-<n>/{tensors.safetensors, state.json}; whole or absent, never pickle."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fieldctr.artifacts import write_json
from fieldctr.errors import UserError

FOLDER, TENSORS, STATE = "checkpoint", "tensors.safetensors", "state.json"


class Checkpoint(NamedTuple):
    """Tensors by name, and everything else as JSON."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]


def save(folder: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write folder/checkpoint/step-<step>, then remove the older ones: at any moment one whole checkpoint exists."""
    root = folder / FOLDER
    final, temporary = root / f"step-{step}", root / f".step-{step}"
    shutil.rmtree(temporary, ignore_errors=True)  # what a killed save left
    temporary.mkdir(parents=True)
    save_file(_separate(tensors), temporary / TENSORS)
    write_json(temporary / STATE, state)
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    for other in root.iterdir():
        if other != final:
            shutil.rmtree(other)


def load(folder: Path) -> Checkpoint | None:
    """The newest checkpoint below `folder`, on the CPU, or None when there is none. Raises UserError if damaged."""
    found = sorted((folder / FOLDER).glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))
    if not found:
        return None
    try:
        state = json.loads((found[-1] / STATE).read_text(encoding="utf-8"))
        return Checkpoint(load_file(found[-1] / TENSORS), state)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{found[-1]} cannot be read ({error}): remove it, or start anew with resume=false") from error


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor with a storage of its own, as the format demands; only shared ones are copied."""
    seen: set[int] = set()
    separate: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        separate[name] = plain.clone() if plain.untyped_storage().data_ptr() in seen else plain
        seen.add(plain.untyped_storage().data_ptr())
    return separate
