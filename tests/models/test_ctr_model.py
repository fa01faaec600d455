"""The composition: what an enhancer adds, what is counted, and what is refused."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from fieldctr.errors import UserError
from fieldctr.inputs import Inputs
from fieldctr.models.ctr_model import build_model, flops_per_sample
from fieldctr.nn.flops import FlopCounter
from fieldctr.schema import Field, Schema

Node = Callable[[str], dict[str, Any]]


class Shift(nn.Module):
    """An enhancer by its signature alone."""

    def __init__(self, schema: Schema, dim: int, *, by: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(schema.num_fields, dim))
        self.by = by

    def forward(self, emb: Tensor) -> tuple[Tensor, Tensor]:
        return (emb * self.weight).sum((1, 2)) + self.by, self.weight.square().sum()


pytestmark = pytest.mark.usefixtures("trust_tests")
SHIFT = {"_target_": f"{__name__}.Shift", "by": 2.0}


def test_an_enhancer_adds_to_the_logit_and_gives_the_penalty(node: Node, schema: Schema, inputs: Inputs) -> None:
    plain = build_model(schema, dim=4, model=node("fm"), enhancer=None, seed=1)
    model = build_model(schema, dim=4, model=node("fm"), enhancer=SHIFT, seed=1)
    output, enhancer = model(inputs), model.enhancer
    assert isinstance(enhancer, Shift)
    extra = (plain.embedding(inputs) * enhancer.weight).sum((1, 2)) + 2.0
    assert_close(output.logit, plain(inputs).logit + extra)
    assert_close(output.penalty, enhancer.weight.square().sum())
    assert plain(inputs).penalty == 0


def test_with_and_without_an_enhancer_a_backbone_starts_the_same(node: Node, schema: Schema) -> None:
    plain = build_model(schema, dim=4, model=node("deepfm"), enhancer=None, seed=1).state_dict()
    enhanced = build_model(schema, dim=4, model=node("deepfm"), enhancer=SHIFT, seed=1).state_dict()
    assert all(torch.equal(value, enhanced[key]) for key, value in plain.items())


def test_an_enhancer_counts_as_dense(node: Node, schema: Schema) -> None:
    counts = [
        build_model(schema, dim=4, model=node("fm"), enhancer=enhancer, seed=1).num_parameters()
        for enhancer in (None, SHIFT)
    ]
    assert counts[1]["dense"] - counts[0]["dense"] == schema.num_fields * 4
    assert counts[1]["embedding"] == counts[0]["embedding"] == schema.vocab_size * 5


def test_embedding_std_is_the_scale_of_the_feature_embeddings(node: Node, schema: Schema) -> None:
    model = build_model(schema, dim=512, model=node("fm") | {"embedding_std": 0.02}, enhancer=None, seed=1)
    weight = next(model.embedding.parameters()).detach()
    assert weight.shape == (schema.vocab_size, 512)
    assert_close(float(weight.std()), 0.02, rtol=0.05, atol=0)


def test_a_model_that_reads_embeddings_must_say_their_scale(node: Node, schema: Schema) -> None:
    fm = {key: value for key, value in node("fm").items() if key != "embedding_std"}
    with pytest.raises(UserError, match=r"model\.embedding_std.*missing"):
        build_model(schema, dim=4, model=fm, enhancer=None, seed=1)
    with pytest.raises(UserError, match=r"model\.embedding_std=-1"):
        build_model(schema, dim=4, model=fm | {"embedding_std": -1.0}, enhancer=None, seed=1)
    with pytest.raises(UserError, match=r"no key 'model\.embedding_std'"):
        build_model(schema, dim=4, model=node("lr") | {"embedding_std": 1e-4}, enhancer=None, seed=1)


def test_only_lr_has_no_feature_embedding(node: Node, schema: Schema) -> None:
    model = build_model(schema, dim=4, model=node("lr"), enhancer=None, seed=1)
    assert model.num_parameters() == {"embedding": schema.vocab_size, "dense": 1, "total": schema.vocab_size + 1}


@pytest.mark.filterwarnings("ignore:model.num_bases")
def test_flops_are_those_of_one_more_sample(node: Node) -> None:
    """Two for each weight that a sample meets; FAT's composed matrices are the batch's, however many bases they mix."""
    schema = Schema((Field("a", 9), Field("b", 5), Field("c", 7)))
    deep = build_model(schema, dim=4, model=node("dnn") | {"hidden_dims": [6, 5]}, enhancer=None, seed=1)
    assert flops_per_sample(deep, schema) == 2 * (12 * 6 + 6 * 5 + 5)
    assert deep.training
    fats = [
        build_model(schema, dim=4, model=node("fat") | {"num_layers": 1, "num_bases": bases}, enhancer=None, seed=1)
        for bases in (4, 8)
    ]
    projections, attention = 3 * 4**2 + 2 * 4 * 16, 2 * 3 * 4
    plain = build_model(schema, dim=4, model=node("transformer") | {"num_layers": 1}, enhancer=None, seed=1)
    assert [flops_per_sample(one, schema) for one in (*fats, plain)] == [2 * 3 * (projections + attention)] * 3


@pytest.mark.parametrize(
    ("compute", "flops"),
    [
        (lambda: torch.ones(2, 3) @ torch.ones(3, 5), 2 * 2 * 3 * 5),
        (lambda: torch.ones(7, 2, 3) @ torch.ones(7, 3, 5), 2 * 7 * 2 * 3 * 5),
        (lambda: nn.functional.linear(torch.ones(2, 3), torch.ones(5, 3), torch.ones(5)), 2 * 2 * 3 * 5),
        (lambda: torch.baddbmm(torch.ones(7, 2, 5), torch.ones(7, 2, 3), torch.ones(7, 3, 5)), 2 * 7 * 2 * 3 * 5),
        (lambda: torch.einsum("bfd,fde->bfe", torch.ones(2, 4, 3), torch.ones(4, 3, 5)), 2 * 2 * 4 * 3 * 5),
        (lambda: nn.functional.conv1d(torch.ones(2, 3, 8), torch.ones(5, 3, 2)), 2 * 2 * 7 * 5 * 3 * 2),
        (lambda: torch.ones(2, 3) * torch.ones(3), 0),
    ],
)
def test_flops_are_two_for_each_multiply_add(compute: Callable[[], Tensor], flops: int) -> None:
    with FlopCounter() as counter:
        compute()
    assert counter.flops == flops


@pytest.mark.slow
def test_counting_flops_does_not_import_the_compiler() -> None:
    """4 s, which every run would pay."""
    code = (
        "import sys, torch; from fieldctr.nn.flops import FlopCounter\n"
        "with FlopCounter() as counter: torch.ones(2, 3) @ torch.ones(3, 5)\n"
        "print(counter.flops, 'torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["60", "False"]
