"""What one training step takes, by shapes alone: fake tensors go through it without numbers or memory."""

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fieldctr.config import TrainerConfig
from fieldctr.inputs import Inputs
from fieldctr.models.ctr_model import CTRModel
from fieldctr.nn.flops import FlopCounter
from fieldctr.schema import Schema
from fieldctr.training.loss import batch_loss
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
    build: Callable[[], CTRModel], schema: Schema, settings: TrainerConfig, runtime: Runtime, *, batch_size: int
) -> Costs:
    """The costs of training what `build` makes, with batches of this size."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = build().train()
        sizes, weights = model.num_parameters(), sum(parameter.nbytes for parameter in model.parameters())
        if settings.activation_checkpointing:
            recompute_layers(model)
        inputs, label = batch(schema, batch_size)
        with LiveTensors() as live, FlopCounter() as counter:
            loss = loss_of(model, inputs, label, runtime)
            forward = counter.flops
            loss.backward()
    copies = 4 + (settings.ema_decay is not None)
    return Costs(sizes, forward, counter.flops, copies * weights / 2**20, live.peak / 2**20)


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
