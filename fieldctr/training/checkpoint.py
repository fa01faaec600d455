"""A fit's state on disk: checkpoint/step-<n>/{tensors.safetensors, state.json, checksums.json}; whole or absent."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fieldctr.checksums import check, complete
from fieldctr.disk import TEMPORARY, blamed, flush, remove
from fieldctr.errors import UserError

FOLDER, TENSORS, STATE = "checkpoint", "tensors.safetensors", "state.json"


class Checkpoint(NamedTuple):
    """Tensors by name, and everything else as JSON."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]


def save(folder: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any], *, of: str = "") -> None:
    """Write folder/checkpoint/step-<step>, and remove the older ones when it is on the disk.

    At any moment one whole checkpoint is there. `of` names the fit: no other one will go on from it.
    """
    root = folder / FOLDER
    older = _found(root)
    again = [_number(path)[1] for path in older if _number(path)[0] == step]  # before its evaluation, and after
    final = root / (f"step-{step}.{1 + max(again)}" if again else f"step-{step}")
    temporary = root / f".{final.name}{TEMPORARY}"
    remove(root.glob(".*"))  # what a killed save left
    try:
        with blamed(temporary):
            temporary.mkdir(parents=True)
            save_file(_separate(tensors), temporary / TENSORS)
            complete(temporary, STATE, {"of": of, **state})
            temporary.rename(final)
            flush(root)
    finally:
        remove([temporary])
    remove(older)


def load(folder: Path, *, of: str = "") -> Checkpoint | None:
    """The newest checkpoint below `folder`, on the CPU, or None when there is none; older ones are removed.

    UserError where it is damaged, or of another fit than `of`.
    """
    found = _found(folder / FOLDER)
    if not found:
        return None
    newest, cure = found[-1], _cure(found[-1])
    check(newest, cure=cure)
    try:
        state = json.loads((newest / STATE).read_text(encoding="utf-8"))
        tensors = load_file(newest / TENSORS)
    except (ValueError, SafetensorError) as error:
        raise UserError(f"{newest} cannot be read ({error}). {cure}") from error
    if state.pop("of") != of:
        raise UserError(
            f"{newest} is of another configuration, or of other data: the table has changed since. "
            "Start anew with resume=false"
        )
    remove(found[:-1])
    return Checkpoint(tensors, state)


def newest(folder: Path) -> int | None:
    """The step of the newest checkpoint below `folder`, or None when there is none."""
    found = _found(folder / FOLDER)
    return _number(found[-1])[0] if found else None


def check_checkpoints(folder: Path) -> None:
    """UserError for a damaged checkpoint below `folder`."""
    for path in _found(folder / FOLDER):
        check(path, cure=_cure(path))


def _cure(path: Path) -> str:
    return f"Remove {path}, or start anew with resume=false"


def _found(root: Path) -> list[Path]:
    """The whole checkpoints, the newest last."""
    return sorted(root.glob("step-*"), key=_number)


def _number(path: Path) -> tuple[int, int]:
    """Step, and how often it had been saved before."""
    step, _, again = path.name.removeprefix("step-").partition(".")
    return int(step), int(again or 0)


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor with a storage of its own, as the format demands; only shared ones are copied."""
    seen: set[int] = set()
    separate: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        separate[name] = plain.clone() if plain.untyped_storage().data_ptr() in seen else plain
        seen.add(plain.untyped_storage().data_ptr())
    return separate
