"""A fit's steps on a CUDA device that is not there: fake tensors refuse two devices in one operation, and every wait.

The engine of autograd needs a real device: gradients are put in by hand, and backward passes of own functions called.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from itertools import chain, cycle
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from own_keys import enhancers, own_keys
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorDeviceMismatchError,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fieldctr.catalog import conf_dir, options
from fieldctr.commands.entity_vectors import drawn_texts
from fieldctr.commands.value_vectors import drawn_values
from fieldctr.config import OptimizerConfig, TrainerConfig, parse
from fieldctr.data.dataset import Split
from fieldctr.data.lookups import HistoryEvents, Vectors
from fieldctr.models.ctr_model import CTRModel, build_model
from fieldctr.nn import field_attention
from fieldctr.nn.embedding import EmbeddingTable
from fieldctr.schema import Field, Schema
from fieldctr.training.evaluate import predict
from fieldctr.training.runtime import Precision, Runtime
from fieldctr.training.trainer import Fitting, Trainer

SCHEMA = Schema(
    (
        Field("user", 50),
        Field("price", 2, numeric=True),
        Field("image", 30, vector=5),
        Field("tags", 30, width=3),
        Field("sound", 20, vector=2),
        Field("past", 50, width=4, shares="user"),
    )
)
ROWS, BATCH = 16, 8
WITHOUT_EMBEDDINGS = ("ffm", "lr")  # so nothing for an enhancer
CUDA = torch.device("cuda:0")
REFUSALS = (DataDependentOutputException, DynamicOutputShapeException, FakeTensorDeviceMismatchError)
COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)

pytestmark = [
    pytest.mark.skipif(torch.version.cuda is None, reason="NOT TESTED: fake CUDA, for this torch is built without it"),
    pytest.mark.filterwarnings("ignore"),  # of torch, about a device that is not there
]


class Case(NamedTuple):
    """What a step is made with. The two of a model differ in everything else."""

    model: str
    enhancer: str
    optimizer: str
    update: str
    precision: str

    def __str__(self) -> str:
        return "-".join(self)


def cases() -> Iterator[Case]:
    """Each enhancer that is a part of a model meets two or more, and all but few pairs of the other settings."""
    kinds = [("dense", "fp32"), ("lazy", "bf16"), ("dense", "bf16"), ("lazy", "fp32")]
    parts = cycle(name for name in enhancers() if name != "ctrl")
    for i, model in enumerate(options("model")):
        if "embedding_dim" in own_keys("model", model):  # the same code at another size
            continue
        enhancer = "none" if model in WITHOUT_EMBEDDINGS else next(parts)
        yield Case(model, enhancer, "adam", *kinds[i % 4])
        yield Case(model, "none", "adam", *kinds[(i + 1) % 4 if i % 2 == 0 else (i - 1) % 4])
    for optimizer, model in (("rowwise_adagrad", "deepfm"), ("muon", "dcnv2"), ("muon", "fat_m")):
        yield Case(model, "none", optimizer, "dense", "fp32")
        yield Case(model, "llactr", optimizer, "dense", "bf16")


class Waits(TorchDispatchMode):
    """Notes what fake tensors let pass although the host waits for it: memory that is copied while it stands still."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if func in COPIES:
            goes = kwargs.get("non_blocking") or args[2:] == (True,)
            devices = [] if goes else [read[-1].device.type, out.device.type]
        else:  # one number of the CPU is an argument of a kernel
            devices = [tensor.device.type for tensor in read if tensor.dim()]
        if len(set(devices)) > 1:
            self.seen.append(f"{func}: {' to '.join(devices)}")
        return out


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Waits]:
    """A CUDA device with as much free memory as is asked for, on which gradients come from nowhere."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**40, 2**40))
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(FakeTensor, "numpy", lambda tensor: np.zeros(tensor.shape, np.float32), raising=False)
    with FakeTensorMode(allow_non_fake_inputs=True), Waits() as waits:
        yield waits


def split() -> Split:
    ids = np.ones((ROWS, SCHEMA.num_columns - 4), np.int32)
    events = HistoryEvents(np.ones(9, np.int32), (4,))
    vectors = tuple(
        Vectors(column, np.ones((field.vocab_size, field.vector), np.float32))
        for field, column in zip(SCHEMA.fields, SCHEMA.column_offsets, strict=True)
        if field.vector
    )
    ones = np.ones(ROWS, np.float32)
    windows = np.tile(np.array([1, 3], np.int32), (ROWS, 1))
    return Split(ids, ones, ones[:, None], weight=ones, windows=windows, histories=events, vectors=vectors)


@cache
def composed(*words: str) -> Any:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return OmegaConf.to_container(compose("bench_train", list(words)), resolve=True)


def made(name: str, enhancer: str = "none") -> CTRModel:
    """A model as large as its YAML says, on the device."""
    vectors, config = torch.randn(SCHEMA.num_fields, 12), composed(f"model={name}")
    built = build_model(
        SCHEMA,
        dim=config["embedding_dim"],
        model=config["model"],
        enhancer=composed(f"enhancer={enhancer}")["enhancer"] or None,
        seed=1,
        field_embeddings={"model": vectors, "enhancer": vectors},
        text_vectors=drawn_texts(SCHEMA),
        value_vectors=drawn_values(SCHEMA),
    )
    moved: dict[int, Any] = {}  # weights of fake numbers cannot be moved in place
    for module in built.modules():
        for key, weight in module._parameters.items():
            if weight is not None:
                there = nn.Parameter(weight.to(CUDA), requires_grad=weight.requires_grad)
                module._parameters[key] = moved.setdefault(id(weight), there)
        for key, buffer in module._buffers.items():
            module._buffers[key] = None if buffer is None else buffer.to(CUDA)
    return built


def fitting(case: Case) -> Fitting:
    settings, precision = composed(f"optimizer={case.optimizer}"), cast(Precision, case.precision)
    trainer = replace(parse(TrainerConfig, settings["trainer"], "trainer"), batch_size=BATCH)
    optimizer = replace(
        parse(OptimizerConfig, settings["optimizer"], "optimizer"), embedding_update=case.update, embedding_l2=0.0
    )
    runtime = Runtime(CUDA, 1, "cuda", precision, deterministic=True)
    model = made(case.model, case.enhancer)
    return Fitting(Trainer(trainer, optimizer, runtime, seed=1), model, split(), split(), folder=None)


def gradients(fit: Fitting) -> None:
    """Put in gradients of the form that the engine would give."""
    for module in fit.model.modules():
        for weight in module.parameters(recurse=False):
            weight.grad = torch.empty_like(weight) if weight.requires_grad else None
        if isinstance(module, EmbeddingTable) and module.sparse:
            rows = torch.zeros(BATCH * SCHEMA.num_columns, dtype=torch.int64, device=CUDA)
            values = torch.empty(len(rows), module.weight.shape[1], device=CUDA)
            module.weight.grad = torch.ops.aten.embedding_backward(values, rows, len(module.weight), -1, False, True)


def train(fit: Fitting, device: Waits, monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch, whose order alone may be waited for."""
    monkeypatch.setattr(Tensor, "backward", lambda loss: gradients(fit) if loss.device == CUDA else None)
    batches = fit.batches.shuffled(1, 0)
    first = next(batches)
    device.seen.clear()
    fit.model.train()
    for batch in chain([first], batches):
        fit.train_step(*batch)


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_no_step_mixes_devices_or_waits_and_an_evaluation_waits_once(
    case: Case, device: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A table that the device has room for, or batches that travel.
    monkeypatch.setattr("fieldctr.data.batches.RESIDENT_SHARE", 0.25 if case.precision == "fp32" else 0.0)
    fit = fitting(case)
    train(fit, device, monkeypatch)
    with fit.optimizer.averaged():
        assert device.seen == []
        logit = predict(fit.model, fit.valid, batch_size=2 * BATCH, runtime=fit.runtime)
    assert fit.state.step == ROWS // BATCH
    assert logit.shape == (ROWS,)
    assert [wait for wait in device.seen if "cuda to" in wait] == ["aten._to_copy.default: cuda to cpu"]


def read(logit: Tensor) -> Tensor:
    return logit * logit.sum().item()


def count(logit: Tensor) -> Tensor:
    return logit * len(logit.nonzero())


def mix(logit: Tensor) -> Tensor:
    return logit + torch.ones(len(logit))


def copy(logit: Tensor) -> Tensor:
    return logit * torch.tensor([1.0], device=logit.device)


@pytest.mark.parametrize("plant", [read, count, mix, copy])
def test_what_is_planted_in_a_step_is_found(
    plant: Callable[[Tensor], Tensor], device: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = fitting(Case("lr", "none", "adam", "lazy", "fp32"))
    fit.model.backbone.register_forward_hook(lambda module, given, logit: plant(logit))
    with nullcontext() if plant is copy else pytest.raises(REFUSALS):
        train(fit, device, monkeypatch)
    assert device.seen == (["aten._to_copy.default: cpu to cuda"] * (ROWS // BATCH) if plant is copy else [])


@pytest.mark.parametrize("modulation", ["pre", "post", "none"])
def test_attention_that_is_computed_again_stays_on_its_device(modulation: Any, device: Waits) -> None:
    qkv, weight = torch.zeros(6, BATCH, 24, device=CUDA), torch.zeros(1, 6, 6, device=CUDA)
    absent = torch.zeros(BATCH, 6, dtype=torch.bool, device=CUDA)
    kept = SimpleNamespace(saved_tensors=(qkv,), num_heads=2)
    kept.pairs = field_attention.Pairs(modulation, None if modulation == "none" else weight, absent)
    d_qkv, d_weight, *_ = field_attention._Attention.backward(kept, torch.zeros(6, BATCH, 8, device=CUDA))
    assert d_qkv.device == CUDA
    assert modulation == "none" or d_weight.device == CUDA
    assert device.seen == []
