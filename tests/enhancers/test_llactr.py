"""LLaCTR against its formulas in loops; its adaptors, their clip, and what the released code does instead."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.testing import assert_close

from fieldctr.catalog import conf_dir
from fieldctr.config import OptimizerConfig, build
from fieldctr.enhancers.field_pairs import Dense, LowRank, Scaled, similarities
from fieldctr.enhancers.llactr import LLaCTR
from fieldctr.errors import UserError
from fieldctr.inputs import Inputs
from fieldctr.memory import peak_resident_mb
from fieldctr.models.ctr_model import KINDS, CTRModel, build_model
from fieldctr.nn.flops import FlopCounter
from fieldctr.schema import Field, Schema
from fieldctr.training.costs import LiveTensors
from fieldctr.training.optim import Optimizer

SCHEMA = Schema(tuple(Field(f"f{i}", 7) for i in range(5)))
DIM, WIDTH = 4, 6
NODE = {
    key: value
    for key, value in yaml.safe_load((conf_dir() / "enhancer/llactr.yaml").read_text(encoding="utf-8")).items()
    if key != "defaults"
}
PAIRS = [(i, j) for i in range(5) for j in range(i + 1, 5)]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(1)


@pytest.fixture
def vectors() -> Tensor:
    return torch.randn(5, WIDTH)


@pytest.fixture
def emb() -> Tensor:
    return torch.randn(8, 5, DIM)


def enhancer(vectors: Tensor, schema: Schema = SCHEMA, dim: int = DIM, **options: Any) -> LLaCTR:
    node = {key: value for key, value in NODE.items() if key not in ("source", "epoch")}
    return build(node | options, "enhancer", schema, dim, vectors, kind=KINDS["enhancer"])


def model(vectors: Tensor, **options: Any) -> CTRModel:
    backbone = {"_target_": "fieldctr.models.fm.FM", "embedding_std": 0.1}
    return build_model(
        SCHEMA, dim=DIM, model=backbone, enhancer=NODE | options, seed=1, field_embeddings={"enhancer": vectors}
    )


def softmax(x: Tensor) -> list[float]:
    powers = [math.exp(float(value)) for value in x]
    return [power / sum(powers) for power in powers]


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b) / (float(a @ a) * float(b @ b)) ** 0.5


def targets(module: LLaCTR) -> Tensor:
    linear = module.adaptors["fre"]
    assert isinstance(linear, nn.Linear)
    return torch.stack([linear.weight @ h + linear.bias for h in module.field_embeddings])


@torch.no_grad()
def test_kl_is_summed_over_fields_and_dims_and_averaged_over_samples(vectors: Tensor, emb: Tensor) -> None:
    module = enhancer(vectors, fre_weight=0.3)
    total = 0.0
    for e in emb:
        for wanted, found in zip(targets(module), e, strict=True):
            t, p = softmax(wanted), softmax(found)
            total += sum(a * (math.log(a) - math.log(b)) for a, b in zip(t, p, strict=True))
    assert_close(float(module(emb)[1]), 0.3 * total / len(emb), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_kl_is_zero_where_features_are_their_fields(vectors: Tensor) -> None:
    module = enhancer(vectors)
    assert abs(float(module(targets(module).expand(8, -1, -1))[1])) < 1e-6


@torch.no_grad()
def test_mse(vectors: Tensor, emb: Tensor) -> None:
    module = enhancer(vectors, fre_weight=0.3, fre_loss="mse")
    total = sum(float((t - f) @ (t - f)) for e in emb for t, f in zip(targets(module), e, strict=True))
    assert_close(float(module(emb)[1]), 0.3 * total / len(emb), atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_contrastive(vectors: Tensor, emb: Tensor) -> None:
    module = enhancer(vectors, fre_weight=0.3, fre_loss="contrastive", fre_temperature=0.5)
    total = 0.0
    for e in emb:
        for own, feature in enumerate(e):
            logits = torch.tensor([cosine(feature, field) / 0.5 for field in targets(module)])
            total -= math.log(softmax(logits)[own])
    assert_close(float(module(emb)[1]), 0.3 * total / len(emb), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"fie_adaptor": "lowrank"}, {"fie_term": "constant"}, {"fie_weight": 0.0}])
def test_folded_it_adds_the_same_and_keeps_no_vectors(options: dict[str, Any], vectors: Tensor, emb: Tensor) -> None:
    module = enhancer(vectors, **options).eval()
    with torch.no_grad():
        before = module(emb)[0]
        module.fold()
        assert_close(module(emb)[0], before, atol=1e-6, rtol=1e-6)
    assert "fre" not in module.adaptors
    assert module.field_embeddings.numel() == 0
    if "fie_adaptor" not in options:
        assert not list(module.parameters())


@pytest.mark.parametrize("kind", ["dense", "lowrank", "scalar"])
@torch.no_grad()
def test_fie_weighs_the_products_of_pairs(kind: str, vectors: Tensor, emb: Tensor) -> None:
    module = enhancer(vectors, fie_adaptor=kind, fie_weight=0.3, fie_rank=2)
    pairs: Any = module.adaptors["fie"]
    pairs.get_parameter("mix.bias" if kind == "dense" else "shift").fill_(0.7)
    m = looped_weights(pairs, vectors)
    assert_close(pairs.pair_weight().tolist(), m, atol=1e-5, rtol=1e-4)
    expected = [0.3 * sum(w * float(e[i] @ e[j]) for w, (i, j) in zip(m, PAIRS, strict=True)) for e in emb]
    assert_close(module(emb)[0], torch.tensor(expected), atol=1e-4, rtol=1e-4)
    matrix = module.pair_weights()
    served = [sum(float(matrix[i, j] * (e[i] @ e[j])) for i, j in PAIRS) for e in emb]
    assert_close(module(emb)[0], torch.tensor(served), atol=1e-4, rtol=1e-4)


def looped_weights(pairs: nn.Module, vectors: Tensor) -> list[float]:
    s = [cosine(vectors[i], vectors[j]) for i, j in PAIRS]
    if isinstance(pairs, Dense):
        return [float(row @ torch.tensor(s) + b) for row, b in zip(pairs.mix.weight, pairs.mix.bias, strict=True)]
    if isinstance(pairs, Scaled):
        return [float(pairs.scale) * x + float(pairs.shift) for x in s]
    assert isinstance(pairs, LowRank)
    whole = [[cosine(a, b) for b in vectors] for a in vectors]
    mixing = pairs.left @ pairs.right.T
    return [
        sum(float(mixing[i, k] * mixing[j, n]) * whole[k][n] for k in range(5) for n in range(5)) + float(pairs.shift)
        for i, j in PAIRS
    ]


def test_lowrank_of_full_rank_is_dense_with_a_product_of_field_matrices(vectors: Tensor, emb: Tensor) -> None:
    low, dense = LowRank(vectors, rank=5), Dense(similarities(vectors))
    with torch.no_grad():
        mixing = torch.randn(5, 5)
        low.left.copy_(mixing)
        low.right.copy_(torch.eye(5))
        for p, (i, j) in enumerate(PAIRS):
            for q, (k, n) in enumerate(PAIRS):
                dense.mix.weight[p, q] = mixing[i, k] * mixing[j, n] + mixing[i, n] * mixing[j, k]
            dense.mix.bias[p] = mixing[i] @ mixing[j]  # the similarities of fields to themselves are 1
    assert_close(low(emb), dense(emb), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_constant_of_the_released_code_ranks_no_samples(vectors: Tensor, emb: Tensor) -> None:
    module = enhancer(vectors, fie_term="constant", fie_weight=0.5)
    pairs: Any = module.adaptors["fie"]
    assert_close(module(emb)[0], torch.full((8,), 0.5 * float(pairs.pair_weight().sum())))
    assert not module.pair_weights().any()


def test_adaptor_counts_are_those_of_the_released_code() -> None:
    schema = Schema(tuple(Field(f"f{i}", 2) for i in range(13)))
    module = enhancer(torch.randn(13, 4096), schema, 32)
    sizes = [sum(p.numel() for p in module.adaptors[part].parameters()) for part in ("fre", "fie")]
    assert sizes == [131_104, 6_162]


def test_weights_of_zero_leave_the_backbone_as_it_is(vectors: Tensor) -> None:
    plain = build_model(
        SCHEMA, dim=DIM, model={"_target_": "fieldctr.models.fm.FM", "embedding_std": 0.1}, enhancer=None, seed=1
    )
    enhanced = model(vectors, fre_weight=0.0, fie_weight=0.0)
    assert train(plain, 5) == train(enhanced, 5)
    with torch.no_grad():
        assert torch.equal(plain(inputs()).logit, enhanced(inputs()).logit)
    assert plain.num_parameters() == enhanced.num_parameters()


def test_evaluation_pays_no_penalty(vectors: Tensor, emb: Tensor) -> None:
    assert enhancer(vectors).eval()(emb)[1] == 0


@pytest.mark.parametrize("kind", ["dense", "lowrank", "scalar"])
def test_training_moves_every_adaptor(kind: str, vectors: Tensor) -> None:
    trained = model(vectors, fie_adaptor=kind)
    before = {name: value.clone() for name, value in adaptors(trained)}
    train(trained, 3)
    assert all((value != before[name]).any() for name, value in adaptors(trained))


def test_frozen_adaptors_stay_and_their_gradients_pile_up(vectors: Tensor) -> None:
    frozen = model(vectors, adaptors="frozen")
    before = {name: value.clone() for name, value in adaptors(frozen)}
    train(frozen, 1)
    first = {name: value.grad.clone() for name, value in adaptors(frozen)}
    train(frozen, 4)
    for name, value in adaptors(frozen):
        assert torch.equal(value, before[name])
        assert value.grad.norm() > 1.5 * first[name].norm() > 0


def test_frozen_gradients_shrink_those_of_the_backbone() -> None:
    """The clip sees them: with large vectors the backbone's step is scaled down, Adam's L2 is not."""
    frozen, trained = (
        model(10 * torch.ones(5, WIDTH), adaptors=kind, fre_loss="mse", fre_weight=5.0)
        for kind in ("frozen", "trained")
    )
    norms = []
    for module in (frozen, trained):
        optimizer = made_optimizer(module)
        loss(module).backward()
        weight = module.embedding.table.weight
        optimizer.step(0.0)
        norms.append(float(optimizer.dense.moments["embedding.table.weight"].exp_avg.norm()))
        assert weight.grad is None or not weight.grad.any()
    assert norms[0] < 0.5 * norms[1]


def test_trained_adaptors_are_clipped_by_their_own_norm(vectors: Tensor) -> None:
    """Against the clip written out: each group divided by its own norm over its own limit."""
    clipped = model(50 * vectors, adaptor_clip_norm=0.01, fre_weight=3.0)
    optimizer = made_optimizer(clipped, clip_norm=0.02)
    loss(clipped).backward()
    own = {name: value.grad.clone() for name, value in adaptors(clipped)}
    rest = torch.stack([p.grad.norm() for n, p in clipped.named_parameters() if "adaptors" not in n]).norm()
    norm = torch.stack([gradient.norm() for gradient in own.values()]).norm()
    bias = clipped.backbone.linear.bias.grad.clone()
    assert norm > 0.01
    assert rest > 0.02
    optimizer.step(0.0)
    moments = optimizer.dense.moments
    for name, gradient in own.items():
        assert_close(moments[name].exp_avg, 0.1 * gradient * 0.01 / norm, atol=1e-9, rtol=1e-4)
    assert_close(moments["backbone.linear.bias"].exp_avg, 0.1 * bias * 0.02 / rest, atol=1e-9, rtol=1e-4)


def test_frozen_gradients_survive_a_checkpoint(vectors: Tensor) -> None:
    first, second = model(vectors, adaptors="frozen"), model(vectors, adaptors="frozen")
    optimizers = [made_optimizer(module) for module in (first, second)]
    loss(first).backward()
    optimizers[1].load({name: value.clone() for name, value in optimizers[0].tensors().items()})
    for (_, a), (_, b) in zip(adaptors(first), adaptors(second), strict=True):
        assert torch.equal(a.grad, b.grad)
        assert a.grad.any()


def test_a_wrong_number_of_vectors_is_named(vectors: Tensor) -> None:
    with pytest.raises(UserError, match="4 field vectors for 5 fields"):
        enhancer(vectors[:4])


def test_thousands_of_fields_cost_memory_and_arithmetic_in_proportion() -> None:
    """A dense adaptor of 2,000 fields would have 4e12 weights, one product of all pairs a 16 GB tensor."""
    flops, peaks = [], []
    for num_fields in (500, 2000):
        module = enhancer(torch.randn(num_fields, 384), many(num_fields), 8, fie_adaptor="lowrank")
        emb = torch.randn(64, num_fields, 8, requires_grad=True)
        with LiveTensors() as live, FlopCounter() as counter:
            logit, penalty = module(emb)
            (logit.sum() + penalty).backward()
        flops.append(counter.flops)
        peaks.append(live.peak)
    for small, large in (flops, peaks):  # 16 times if it were quadratic
        assert 0 < small < large < 5 * small


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of this process cannot be reset")
def test_two_thousand_fields_take_less_than_two_gigabytes() -> None:
    """A batch of 1,024, forward and backward; its embeddings alone are 131 MB."""
    module = enhancer(torch.randn(2000, 384), many(2000), 16, fie_adaptor="lowrank")
    emb = torch.randn(1024, 2000, 16, requires_grad=True)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = peak_resident_mb()
    logit, penalty = module(emb)
    (logit.sum() + penalty).backward()
    assert emb.grad is not None
    assert peak_resident_mb() - before < 2000


def many(num_fields: int) -> Schema:
    return Schema(tuple(Field(f"f{i}", 2) for i in range(num_fields)))


def inputs() -> Inputs:
    return Inputs(torch.randint(0, 7, (32, 5), generator=torch.Generator().manual_seed(2), dtype=torch.int32))


def loss(module: CTRModel) -> Tensor:
    label = (inputs().ids[:, 0] > 3).float()
    output = module.train()(inputs())
    return nn.functional.binary_cross_entropy_with_logits(output.logit, label) + output.penalty


def made_optimizer(module: CTRModel, clip_norm: float = 1.0) -> Optimizer:
    config = OptimizerConfig(
        lr=0.01, beta1=0.9, beta2=0.999, eps=1e-8, embedding_l2=0.0, dense_l2=0.0, embedding_update="dense"
    )
    return Optimizer(module, config, clip_norm=clip_norm, ema_decay=None)


def train(module: CTRModel, steps: int) -> list[float]:
    optimizer, losses = made_optimizer(module), []
    for _ in range(steps):
        value = loss(module)
        value.backward()
        optimizer.step(0.01)
        losses.append(value.item())
    optimizer.close()
    return losses


def adaptors(module: CTRModel) -> Iterator[tuple[str, Any]]:
    return ((name, p) for name, p in module.named_parameters() if "adaptors" in name)
