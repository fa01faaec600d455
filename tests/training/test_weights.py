"""Sample weights in the loss and in a fit: a whole weight is so many equal rows, and equal weights are none."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from fieldctr.data.batches import Batch, Batches
from fieldctr.data.dataset import Split
from fieldctr.errors import UserError
from fieldctr.training.diagnostics import gradient_norms
from fieldctr.training.evaluate import evaluate
from fieldctr.training.loss import batch_loss
from fieldctr.training.runtime import Runtime
from fieldctr.training.trainer import Fitting, Trainer

CPU = torch.device("cpu")


def weighted(split: Split, seed: int = 0) -> Split:
    return replace(split, weight=np.random.default_rng(seed).exponential(size=len(split)).astype(np.float32))


def gradients(model: nn.Module, batch: Batch) -> list[torch.Tensor]:
    model.zero_grad()
    batch_loss(model(batch.inputs), batch.label, batch.weight).backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def whole(split: Split) -> Batch:
    return next(Batches(split, batch_size=len(split), device=CPU).ordered())


@pytest.mark.parametrize("seed", range(5))
def test_a_whole_weight_is_so_many_equal_rows(planted: ModuleType, seed: int) -> None:
    model, split = planted.Tiny(seed=1).eval(), planted.split(90, seed)
    times = np.random.default_rng(seed).integers(0, 5, 90)
    one = whole(replace(split, weight=times.astype(np.float32)))
    other = whole(split.take(np.repeat(np.arange(90), times)))
    losses = [batch_loss(model(batch.inputs), batch.label, batch.weight).detach() for batch in (one, other)]
    assert float(losses[0]) == pytest.approx(float(losses[1]), rel=1e-6)
    for mine, theirs in zip(gradients(model, one), gradients(model, other), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-7)
    assert gradient_norms(model, *one) == pytest.approx(gradient_norms(model, *other), rel=1e-4)


def test_small_batches_add_up_to_the_weighted_mean_over_train(planted: ModuleType) -> None:
    """Which the mean over a batch's own weights would not."""
    model, split = planted.Tiny(seed=1).eval(), weighted(planted.split(120, 1))
    total = [0.0] * len(list(model.parameters()))
    for batch in Batches(split, batch_size=7, device=CPU).shuffled(1, 0):
        own = gradients(model, batch)
        total = [sum_ + len(batch.label) / 120 * part for sum_, part in zip(total, own, strict=True)]
    for mine, theirs in zip(total, gradients(model, whole(split)), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-7)


def test_a_batch_that_weighs_nothing_moves_nothing(planted: ModuleType) -> None:
    split = planted.split(64, 1)
    light = replace(split, weight=(np.arange(64) >= 32).astype(np.float32))
    batch = next(Batches(light, batch_size=32, device=CPU).ordered())
    model = planted.Tiny(seed=1).eval()
    assert batch_loss(model(batch.inputs), batch.label, batch.weight).detach() == 0
    assert not any(part.any() for part in gradients(model, batch))


@pytest.mark.parametrize("weight", [1.0, 0.3, 1e-30, 7e20])
@pytest.mark.parametrize("update", ["dense", "lazy"])
def test_equal_weights_change_no_bit_of_the_weights(
    planted: ModuleType, runtime: Runtime, weight: float, update: str
) -> None:
    optimizer = planted.optimizer_config(embedding_update=update, embedding_l2=0.0)
    models, found = [planted.Tiny(seed=1) for _ in range(2)], []
    for model, own in zip(models, (None, np.full(500, weight, np.float32)), strict=True):
        train = replace(planted.split(500, 1), weight=own)
        valid = replace(planted.split(200, 2), weight=None if own is None else own[:200])
        Trainer(planted.trainer_config(max_epochs=1), optimizer, runtime, seed=3).fit(model, train, valid)
        found.append(evaluate(model, valid, batch_size=64, runtime=runtime))
    assert all(torch.equal(models[0].state_dict()[name], value) for name, value in models[1].state_dict().items())
    assert np.array_equal(found[0].logit, found[1].logit)
    assert found[1].metrics == pytest.approx(found[0].metrics, rel=1e-9)


@pytest.mark.slow
def test_a_fit_follows_the_weights(planted: ModuleType, runtime: Runtime) -> None:
    """Rows of flipped labels have no say where they weigh nothing."""
    train, valid = planted.split(3000, 1), planted.split(600, 2)
    flipped = np.arange(3000) % 2 == 0
    noisy = replace(train, label=np.where(flipped, 1 - train.label, train.label).astype(np.float32))
    found = []
    for weight in (None, np.where(flipped, 0, 1).astype(np.float32)):
        model = planted.Tiny(seed=1)
        trainer = Trainer(planted.trainer_config(max_epochs=9), planted.optimizer_config(), runtime, seed=3)
        trainer.fit(model, replace(noisy, weight=weight), valid)
        found.append(evaluate(model, valid, batch_size=600, runtime=runtime).metrics["attainable_share"])
    assert found[0] < 0.25
    assert found[1] > 0.5


def test_a_resumed_fit_with_weights_is_undisturbed(planted: ModuleType, runtime: Runtime, tmp_path: Path) -> None:
    train, valid = weighted(planted.split(200, 1)), weighted(planted.split(100, 2))
    trainer = Trainer(planted.trainer_config(), planted.optimizer_config(), runtime, seed=3)
    first, second = planted.Tiny(seed=1), planted.Tiny(seed=7)
    done = trainer.fit(first, train, valid, folder=tmp_path)
    again = trainer.fit(second, train, valid, folder=tmp_path, resume=True)
    assert again._replace(seconds={}) == done._replace(seconds={})


def test_rows_that_weigh_nothing_at_all_are_refused(planted: ModuleType, runtime: Runtime) -> None:
    split = replace(planted.split(50, 1), weight=np.zeros(50, np.float32))
    trainer = Trainer(planted.trainer_config(), planted.optimizer_config(), runtime, seed=3)
    with pytest.raises(UserError, match="weights of these 50 rows sum to 0"):
        trainer.fit(planted.Tiny(seed=1), split, planted.split(50, 2))


def test_metrics_of_a_split_are_weighted_and_those_of_torchmetrics_say_that_they_are_not(
    planted: ModuleType, runtime: Runtime
) -> None:
    model, split = planted.Tiny(seed=1), planted.split(300, 2)
    extra = ["torchmetrics.classification.BinaryAUROC"]
    times = np.random.default_rng(1).integers(0, 4, 300)
    one = replace(split, weight=times.astype(np.float32))
    found = evaluate(model, one, batch_size=64, runtime=runtime, extra=extra).metrics
    same = evaluate(model, split.take(np.repeat(np.arange(300), times)), batch_size=64, runtime=runtime).metrics
    plain = evaluate(model, split, batch_size=64, runtime=runtime, extra=extra).metrics
    assert found.pop("BinaryAUROC_unweighted") == plain["BinaryAUROC"]
    assert found == pytest.approx(same, rel=1e-6)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("share", [0.0, 0.25])
def test_on_cuda_batches_carry_the_same_weights_and_no_step_waits(
    planted: ModuleType, runtime: Runtime, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fieldctr.data.batches.RESIDENT_SHARE", share)
    cuda, split = torch.device("cuda"), weighted(planted.split(512, 1))
    one, other = (Batches(split, batch_size=64, device=device).shuffled(1, 2) for device in (CPU, cuda))
    for mine, theirs in zip(one, other, strict=True):
        assert mine.weight is not None
        assert theirs.weight is not None
        assert torch.equal(mine.weight, theirs.weight.cpu())
    trainer = Trainer(planted.trainer_config(), planted.optimizer_config(), replace(runtime, device=cuda), seed=3)
    fitting = Fitting(trainer, planted.Tiny(seed=1).cuda(), split, planted.split(50, 2), None)
    batches = list(fitting.batches.shuffled(3, 0, 0))
    fitting.train_step(*batches[0])
    torch.cuda.set_sync_debug_mode("error")
    try:
        fitting.train_step(*batches[1])
    finally:
        torch.cuda.set_sync_debug_mode("default")
