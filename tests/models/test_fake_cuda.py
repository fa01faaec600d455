"""Steps on a CUDA device that is not there: fake tensors refuse two devices in one operation, and waiting for one."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch._subclasses.fake_tensor import FakeTensorMode

from fieldctr.catalog import conf_dir
from fieldctr.config import OptimizerConfig, parse
from fieldctr.inputs import Inputs
from fieldctr.models.ctr_model import build_model
from fieldctr.schema import Field, Schema
from fieldctr.training.loss import batch_loss
from fieldctr.training.optim import Optimizer

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
ROWS = 32

pytestmark = [
    pytest.mark.skipif(torch.version.cuda is None, reason="NOT TESTED: fake CUDA, for this torch is built without it"),
    pytest.mark.filterwarnings("ignore"),  # of torch, about a device that is not there
]


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("enhancer", ["none", "llactr"])
@pytest.mark.parametrize("model", ["fm", "dcnv2", "fat", "din"])
def test_vector_fields_step_on_one_device(model: str, enhancer: str, bf16: bool, node: Callable[[str], Any]) -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("bench_train", [f"enhancer={enhancer}"]), resolve=True)
    vectors = torch.randn(SCHEMA.num_fields, 12)
    made = build_model(
        SCHEMA,
        dim=16,
        model=node(model),
        enhancer=config["enhancer"] or None,
        seed=1,
        field_embeddings={"model": vectors, "enhancer": vectors},
    )
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake:
        made = made._apply(lambda tensor: fake.from_tensor(tensor).to("cuda"))
        settings = parse(OptimizerConfig, config["optimizer"], "optimizer")
        optimizer = Optimizer(made.train(), settings, clip_norm=1.0, ema_decay=0.99)
        ids = torch.ones(ROWS, SCHEMA.num_columns, dtype=torch.int32, device="cuda")
        inputs = Inputs(ids, torch.ones(ROWS, SCHEMA.num_values, device="cuda"))
        for _ in range(2):
            with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
                output = made(inputs)
            loss = batch_loss(output, torch.ones(ROWS, device="cuda"))
            for weight in made.parameters():  # the engine of autograd needs a real device
                weight.grad = torch.empty_like(weight) if weight.requires_grad else None
            optimizer.step(1e-3)
        with optimizer.averaged(), torch.no_grad():
            logit = made.eval()(inputs).logit
    assert loss.device.type == logit.device.type == "cuda"
    assert logit.shape == (ROWS,)
