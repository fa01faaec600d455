"""Where a pretrained model's files are: in a package, in a folder, in a GGUF file, or in the hub's cache."""

import importlib.util
from importlib import metadata
from pathlib import Path
from typing import Any

from fieldctr.artifacts import cached, check_stage, file_digest
from fieldctr.data.table import refused_if_changed
from fieldctr.errors import UserError
from fieldctr.raw_files import stamps

PACKAGE = "package:"
FILES = ("*.safetensors", "*.json", "*.txt", "*.model")  # weights, configuration, tokenizer
GGUF = ".gguf"


def model_files(model: str, origin: str) -> tuple[Path, ...]:
    """All files that decide what the model computes."""
    place = model_place(model, origin)
    if place.suffix == GGUF:
        return (place,)
    found = tuple(sorted(path for pattern in FILES for path in place.glob(pattern)))
    if not any(path.suffix == ".safetensors" for path in found):
        raise UserError(f"encoder.model={model}: no *.safetensors in {place}. Put the model's files there")
    return found


def model_place(model: str, origin: str) -> Path:
    """The folder or GGUF file of package:NAME/PATH, of a path, or of a hub id.

    A hub id is fetched unless HF_HUB_OFFLINE is set. `origin` says how to get a model that is not there.
    """
    place = _on_disk(model)
    if place is None and model.startswith(PACKAGE):
        raise UserError(f"encoder.model={model} is not installed. Get it: {origin}")
    return place or _from_hub(model, origin)


def local_place(model: str) -> Path | None:
    """The folder or GGUF file of package:NAME/PATH, of a path, or of a hub id in the cache; None: it is not here."""
    place = _on_disk(model)
    if place or model.startswith(PACKAGE):
        return place
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, allow_patterns=list(FILES), local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def _on_disk(model: str) -> Path | None:
    if model.startswith(PACKAGE):
        package, _, inside = model.removeprefix(PACKAGE).partition("/")
        spec = importlib.util.find_spec(package)  # runs none of its code
        return None if spec is None or spec.origin is None else Path(spec.origin).parent / inside
    path = Path(model)
    return path if path.is_dir() or (path.suffix == GGUF and path.is_file()) else None


def loadable_folder(model: str, origin: str, converted: Path) -> Path:
    """A folder that transformers reads. A GGUF file is unpacked below `converted`, once: 18 s become 0.1 s."""
    place = model_place(model, origin)
    if place.suffix != GGUF:
        return place
    if importlib.util.find_spec("gguf") is None:
        raise UserError(f"encoder.model={model} is a GGUF file, and the package that reads it is missing: {origin}")
    before = stamps([place])
    key = {"gguf": file_digest(place), "transformers": metadata.version("transformers")}

    def build(folder: Path) -> None:
        with refused_if_changed(before):
            _unpack(place, folder)

    folder = cached(converted, key, build)
    check_stage(folder)
    return folder


def _unpack(file: Path, folder: Path) -> None:
    """Weights of fewer bits become fp32, with the values that they stand for."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
    model: Any = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **source)
    tokenizer: Any = AutoTokenizer.from_pretrained(file.parent, **source)
    del model.config.quantization_config  # else it refuses to be saved
    model.hf_quantizer, model.is_quantized = None, False
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _from_hub(model: str, origin: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, allow_patterns=list(FILES)))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise UserError(
            f"encoder.model={model}: no such folder or GGUF file, nor to be had from the hub ({type(error).__name__}). "
            f"Put its files into a folder and set encoder.model=FOLDER ({origin}), or take encoder=minilm"
        ) from error
