"""`fieldctr list models dataset=NAME`: what each model's parameters, FLOPs and training state are on a table."""

from pathlib import Path
from typing import NamedTuple

from torch._subclasses.fake_tensor import FakeTensorMode

from fieldctr.catalog import options
from fieldctr.commands.field_vectors import drawn
from fieldctr.commands.launch import compose
from fieldctr.config import TrainConfig, parse
from fieldctr.data.describe import grid
from fieldctr.data.prepare import prepared
from fieldctr.errors import UserError, nearest
from fieldctr.models.ctr_model import build_model, flops_per_sample
from fieldctr.schema import Schema

KEYS = ("dataset", "embedding_dim", "tuned", "data_root", "outputs")  # of the configuration of `train`
HEAD = ["model", "dim", "dense parameters", "embedding parameters", "FLOPs per sample", "training state MB"]
STATE_BYTES = 16  # a parameter's float32 weight, gradient and two moments


class Size(NamedTuple):
    """A model on a table."""

    dim: int
    dense: int
    embedding: int
    flops: int  # of a forward pass, by sample

    def cells(self) -> list[str]:
        state = (self.dense + self.embedding) * STATE_BYTES / 2**20
        return [f"{self.dim}", f"{self.dense:,}", f"{self.embedding:,}", f"{self.flops:,}", f"{state:,.0f}"]


def main(*overrides: str, own: str | None = None) -> None:
    """Print a line for each model as `fieldctr train` would build it; one that cannot be built says why."""
    refuse_other_keys(overrides)
    config = composed(*overrides, own=own)
    dataset = prepared(config.dataset, data_dir=Path(config.outputs) / "data")
    rows, refused = [HEAD], []
    for name in options("model", own):
        try:
            rows.append([name, *size(composed(*overrides, f"model={name}", own=own), dataset.schema).cells()])
        except (UserError, RuntimeError) as error:
            rows.append([name, *["-"] * (len(HEAD) - 1)])
            refused.append(f"{name}: {str(error).splitlines()[0]}")
    print(f"{dataset.name}: {dataset.schema.num_fields} fields, {dataset.schema.vocab_size:,} rows, {dataset.folder}")
    print("models as `fieldctr train` builds them; FLOPs of the forward pass's matrix products; state of weights,")
    print("gradients and Adam's two moments, without activations\n")
    print("\n".join([grid(rows), *refused]))


def refuse_other_keys(overrides: tuple[str, ...]) -> None:
    """What else `train` takes changes no size, or is a model's own."""
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~").partition(".")[0]
        if key not in KEYS:
            raise UserError(f"list models takes no '{key}'. {nearest(key, KEYS)}All: {', '.join(KEYS)}")
    if not any(override.startswith("dataset=") for override in overrides):
        raise UserError("list models needs dataset=NAME to compute sizes. All: fieldctr list datasets")


def composed(*overrides: str, own: str | None = None) -> TrainConfig:
    """The configuration that `fieldctr train` would use, tuned settings included."""
    return parse(TrainConfig, compose("train", overrides, config_dir=own), "")


def size(config: TrainConfig, schema: Schema) -> Size:
    """Counted with fake tensors: the largest model costs no memory and no arithmetic."""
    with FakeTensorMode():
        model = build_model(
            schema,
            dim=config.embedding_dim,
            model=config.model,
            enhancer=None,
            seed=config.seed,
            field_embeddings=drawn(schema.num_fields),
        )
        counts = model.num_parameters()
        return Size(config.embedding_dim, counts["dense"], counts["embedding"], flops_per_sample(model, schema))
