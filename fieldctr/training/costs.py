"""What one training step takes, by shapes alone: fake tensors go through it without numbers or memory."""

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fieldctr.config import OptimizerConfig, TrainerConfig
from fieldctr.inputs import Inputs
from fieldctr.models.ctr_model import CTRModel
from fieldctr.nn.embedding import EmbeddingTable
from fieldctr.nn.flops import FlopCounter
from fieldctr.schema import Schema
from fieldctr.training.loss import batch_loss
from fieldctr.training.muon import is_wide
from fieldctr.training.recompute import recompute_layers
from fieldctr.training.runtime import Runtime


class Costs(NamedTuple):
    """What one step costs. FLOPs are those of matrix products, two for a multiplication and its addition."""

    parameters: dict[str, int]  # as CTRModel.num_parameters counts them
    forward_flops: int
    flops: int  # with the backward pass
    state_mb: float  # weights, their moments, their average, and the best ones so far, in fp32
    step_mb: float  # the most that activations and gradients take together

    @property
    def memory_mb(self) -> float:
        return self.state_mb + self.step_mb


def step_costs(
    build: Callable[[], CTRModel],
    schema: Schema,
    settings: TrainerConfig,
    runtime: Runtime,
    *,
    optimizer: OptimizerConfig,
    batch_size: int,
) -> Costs:
    """The costs of training what `build` makes, with batches of this size."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = build().train()
        sizes, weights = model.num_parameters(), sum(parameter.nbytes for parameter in model.parameters())
        moments = moment_bytes(model, optimizer)
        if settings.activation_checkpointing:
            recompute_layers(model)
        inputs, label = batch(schema, batch_size)
        with LiveTensors() as live, FlopCounter() as counter:
            loss = loss_of(model, inputs, label, runtime)
            forward = counter.flops
            loss.backward()
    copies = 2 + (settings.ema_decay is not None)
    return Costs(sizes, forward, counter.flops, (copies * weights + moments) / 2**20, live.peak / 2**20)


def moment_bytes(model: nn.Module, optimizer: OptimizerConfig) -> int:
    """Adam keeps two numbers for each of a weight, Muon one, and row-wise Adagrad one for each row of a table."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, EmbeddingTable)}
    total = 0
    for weight in model.parameters():
        if id(weight) in tables:
            total += weight[:, 0].nbytes if optimizer.embedding_rule == "rowwise_adagrad" else 2 * weight.nbytes
        else:
            by_muon = optimizer.matrix_rule == "muon" and is_wide(weight, optimizer.matrix_width)
            total += (1 if by_muon else 2) * weight.nbytes
    return total


def loss_of(model: CTRModel, inputs: Inputs, label: Tensor, runtime: Runtime) -> Tensor:
    """The loss of a batch, as the trainer computes it."""
    with runtime.autocast():
        output = model(inputs)
    return batch_loss(output, label)


def batch(schema: Schema, size: int) -> tuple[Inputs, Tensor]:
    """The shapes of a batch."""
    values = torch.zeros(size, schema.num_values) if schema.num_values else None
    return Inputs(torch.zeros(size, schema.num_columns, dtype=torch.int32), values), torch.zeros(size)


class LiveTensors(TorchDispatchMode):
    """Inside, counts the bytes of all tensors that operations make, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self.add(tensor.untyped_storage(), given)
        return made

    def add(self, storage: torch.UntypedStorage, given: set[int]) -> None:
        key = storage._cdata
        if key in given or key in self.known:  # a view, or written in place
            return
        self.known.add(key)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self.free, key, storage.nbytes())

    def free(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.live -= size
