"""The optimizer against torch.optim.Adam, and the lazy update against float64 dense Adam, average included."""

from functools import cache
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fieldctr.errors import UserError
from fieldctr.nn.embedding import EmbeddingTable
from fieldctr.training.optim import Optimizer, decay_at, global_norm, learning_rates
from fieldctr.training.sparse_gradients import RowSums

ROWS, DIM, STEPS = 60, 3, 250


class Lookup(nn.Module):
    """A table, a bias, and a loss whose gradient differs from row to row by magnitudes."""

    def __init__(self, dtype: torch.dtype = torch.float32, *, reads: int = 1) -> None:
        super().__init__()
        self.table, self.reads = EmbeddingTable(ROWS, DIM, init_std=0.0), reads
        self.bias = nn.Parameter(torch.zeros(()))
        with torch.no_grad():
            self.table.weight.copy_(torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(1)))
        self.to(dtype)

    def forward(self, rows: Tensor) -> Tensor:
        parts = [self.table(part) for part in rows.chunk(self.reads)]
        scale = torch.logspace(-3, 1, ROWS, dtype=self.bias.dtype)
        return ((torch.cat(parts) + self.bias).sin().sum(1) * scale[rows]).sum() / len(rows)


def batches(steps: int) -> list[Tensor]:
    """Zipf-like: some rows at every step, some once in hundreds, some never; duplicates within a batch."""
    generator = torch.Generator().manual_seed(2)
    return [((ROWS - 5) * torch.rand(20, generator=generator) ** 6).long() for _ in range(steps)]


def rates(steps: int) -> list[float]:
    return [0.01 * 0.3 ** (step // 100) for step in range(steps)]


@cache
def dense_twin(decay: float, clip_norm: float, steps: int = STEPS) -> tuple[Tensor, Tensor]:
    """Weights and bias-corrected averages by torch.optim.Adam in float64."""
    model = Lookup(torch.float64)
    optimizer = torch.optim.Adam(model.parameters(), eps=1e-8)
    total = torch.zeros_like(model.table.weight)
    for rows, lr in zip(batches(steps), rates(steps), strict=True):
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        model(rows).backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
        total = decay * total + (1 - decay) * model.table.weight.detach()
    return model.table.weight.detach(), total / (1 - decay**steps)


def trained(planted: ModuleType, update: str, decay: float | None, clip_norm: float | None, **model: Any) -> Any:
    lookup = Lookup(**model)
    config = planted.optimizer_config(embedding_l2=0.0, dense_l2=0.0, embedding_update=update)
    optimizer = Optimizer(lookup, config, clip_norm=clip_norm, ema_decay=decay)
    for rows, lr in zip(batches(STEPS), rates(STEPS), strict=True):
        lookup(rows).backward()
        optimizer.step(lr)
    return lookup, optimizer


@pytest.mark.parametrize("update", ["dense", "lazy"])
@pytest.mark.parametrize("decay", [0.9, 0.99, 0.999])
@pytest.mark.parametrize("clip_norm", [0.5, 1e9])
def test_both_updates_are_float64_adam_and_average(
    planted: ModuleType, update: str, decay: float, clip_norm: float
) -> None:
    weight, mean = dense_twin(decay, clip_norm)
    model, optimizer = trained(planted, update, decay, clip_norm)
    with optimizer.averaged():
        torch.testing.assert_close(model.table.weight.double(), mean, rtol=1e-3, atol=2e-5)
    torch.testing.assert_close(model.table.weight.double(), weight, rtol=1e-3, atol=2e-5)
    moved = (weight - Lookup().table.weight).abs().amax(1)
    assert (moved[:-5] > 0.01).float().mean() > 0.5, "the test moves too little to tell anything"


def test_lazy_moves_rows_that_a_touched_rows_only_update_would_not(planted: ModuleType) -> None:
    """The twin of the twin: forgetting the missed steps is far outside the tolerance."""
    weight, _ = dense_twin(0.9, 1e9)
    model = Lookup()
    optimizer = torch.optim.SparseAdam([model.table.weight])
    model.table.sparse = True
    for rows, lr in zip(batches(STEPS), rates(STEPS), strict=True):
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        model(rows).backward()
        optimizer.step()
    assert (model.table.weight - weight).abs().max() > 1e-2


def test_lazy_with_a_table_read_twice_in_a_step_equals_one_read(planted: ModuleType) -> None:
    once, _ = trained(planted, "lazy", 0.9, 1.0)
    twice, optimizer = trained(planted, "lazy", 0.9, 1.0, reads=2)
    torch.testing.assert_close(twice.table.weight, once.table.weight, rtol=1e-4, atol=1e-5)
    assert optimizer.lazy["table"].pending is None


def test_lazy_without_average_or_clip(planted: ModuleType) -> None:
    dense, _ = trained(planted, "dense", None, None)
    lazy, optimizer = trained(planted, "lazy", None, None)
    with optimizer.averaged():
        torch.testing.assert_close(lazy.table.weight, dense.table.weight, rtol=1e-3, atol=2e-5)


def test_lazy_outlives_its_first_schedule(planted: ModuleType) -> None:
    """More steps than the schedule starts with room for, and a row untouched through all of them."""
    steps = 1100
    models = Lookup(), Lookup()
    pair = [
        Optimizer(model, planted.optimizer_config(embedding_l2=0.0, dense_l2=0.0, embedding_update=update),
                  clip_norm=None, ema_decay=0.99)
        for model, update in zip(models, ("dense", "lazy"), strict=True)
    ]  # fmt: skip
    for rows in [torch.arange(ROWS), *batches(steps)]:
        for model, optimizer in zip(models, pair, strict=True):
            model(rows).backward()
            optimizer.step(0.001)
    with pair[0].averaged(), pair[1].averaged():
        torch.testing.assert_close(models[1].table.weight, models[0].table.weight, rtol=1e-3, atol=5e-5)


def test_closing_gives_the_table_its_dense_gradient_back(planted: ModuleType) -> None:
    model, optimizer = trained(planted, "lazy", None, None)
    optimizer.close()
    model(batches(1)[0]).backward()
    assert not model.table.weight.grad.is_sparse
    assert not model.table._forward_pre_hooks


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"embedding_l2": 1e-5}, ["optimizer.embedding_update=lazy", "optimizer.embedding_l2=1e-05"]),
        ({"embedding_l2": 0.0, "beta1": 0.9, "beta2": 0.5}, ["optimizer.embedding_update=lazy", "0.9 and 0.5"]),
    ],
)
def test_lazy_refuses_what_it_cannot_do(planted: ModuleType, changes: dict[str, Any], keys: list[str]) -> None:
    config = planted.optimizer_config(embedding_update="lazy", **changes)
    with pytest.raises(UserError) as refusal:
        Optimizer(Lookup(), config, clip_norm=None, ema_decay=None)
    assert all(key in str(refusal.value) for key in keys)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99, 1.0])
def test_the_average_is_the_weighted_mean_of_the_weights_after_each_step(decay: float) -> None:
    values = [1.0, -2.0, 5.0, 0.5]
    weights = [decay ** (len(values) - 1 - i) for i in range(len(values))]
    mean = 77.0  # what it was before the first step does not count
    for step, value in enumerate(values, start=1):
        keep = decay_at(decay, step) if decay else 0.0
        mean = keep * mean + (1 - keep) * value
    assert mean == pytest.approx(sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights))


def test_running_statistics_are_averaged_and_counters_are_not(planted: ModuleType) -> None:
    model = planted.Tiny(seed=1)
    average = Optimizer(model, planted.optimizer_config(), clip_norm=None, ema_decay=0.9).average
    assert average is not None
    assert "backbone.1.running_mean" in average.live
    assert "backbone.1.num_batches_tracked" not in average.live


def test_global_norm_is_one_vectors() -> None:
    parts = [torch.randn(5, 3), torch.randn(7), torch.randn(())]
    assert float(global_norm(parts)) == pytest.approx(float(torch.cat([part.flatten() for part in parts]).norm()))


def test_weights_without_gradient_stay(planted: ModuleType) -> None:
    model = planted.Tiny(seed=1)
    model.unused = nn.Parameter(torch.ones(3))
    model.table.weight.requires_grad_(requires_grad=False)
    before = model.table.weight.clone()
    optimizer = Optimizer(model, planted.optimizer_config(dense_l2=0.1), clip_norm=1.0, ema_decay=0.9)
    model.linear.weight.sum().backward()
    optimizer.step(0.1)
    assert torch.equal(model.unused, torch.ones(3))
    assert torch.equal(model.table.weight, before)
    assert model.linear.weight.abs().min() > 0


def test_a_module_can_learn_at_a_share_of_the_rate(planted: ModuleType) -> None:
    """Adam's first step is the rate itself, whatever the gradient."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    model[0].lr_scale = 0.25
    before = [weight.detach().clone() for weight in model.parameters()]
    optimizer = Optimizer(model, planted.optimizer_config(dense_l2=0.0), clip_norm=None, ema_decay=None)
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step(0.1)
    moved = [float((new.detach() - old).abs().max()) for new, old in zip(model.parameters(), before, strict=True)]
    assert moved == pytest.approx([0.025, 0.025, 0.1, 0.1], rel=1e-3)


def test_rates_are_told_by_the_largest_parts_that_have_one(planted: ModuleType) -> None:
    model = nn.Sequential(
        nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)), nn.Linear(4, 1)
    )
    model[1][0].lr_scale = 0.5
    model[1][0].lr_width, model[1][1].lr_width, model[0].lr_width = 32, 64, 8
    model[1][2].frozen = True
    model[2].bias.requires_grad_(requires_grad=False)
    config = planted.optimizer_config(lr=0.8, base_width=16)
    expected = {"0": 0.8, "1.0": 0.2, "1.1": 0.2, "1.2": 0.0, "2.weight": 0.8, "2.bias": 0.0}
    assert learning_rates(model, config) == pytest.approx(expected)
    wider = planted.optimizer_config(lr=0.8, base_width=64)
    assert learning_rates(model, wider) == pytest.approx(expected | {"1.0": 0.4, "1.1": 0.8})


def test_a_lazy_table_has_no_rate_of_its_own(planted: ModuleType) -> None:
    for hook, value in (("lr_scale", 0.5), ("lr_width", 32)):
        model = Lookup()
        setattr(model.table, hook, value)
        config = planted.optimizer_config(embedding_l2=0.0, embedding_update="lazy")
        with pytest.raises(UserError, match="lazy tables learn at the rate itself"):
            Optimizer(model, config, clip_norm=None, ema_decay=None)


@pytest.mark.parametrize("update", ["dense", "lazy"])
def test_a_penalty_on_a_whole_table(planted: ModuleType, update: str) -> None:
    """It makes the gradient dense: the dense update takes it, the lazy one says that it cannot."""
    model = Lookup()
    config = planted.optimizer_config(embedding_l2=0.0, embedding_update=update)
    optimizer = Optimizer(model, config, clip_norm=1.0, ema_decay=None)
    (model(batches(1)[0]) + model.table.weight.square().sum()).backward()
    if update == "lazy":
        with pytest.raises(UserError, match="penalty on a whole embedding table"):
            optimizer.step(0.01)
    else:
        before = model.table.weight.detach().clone()
        optimizer.step(0.01)
        assert (model.table.weight != before).all()


def test_row_sums_are_their_loop() -> None:
    rows = torch.tensor([7, 2, 7, 7, 0, 2])
    values = torch.randn(6, 3)
    gradient = torch.sparse_coo_tensor(rows[None], values, (9, 3), check_invariants=True)
    index, sums = RowSums().of(gradient)
    assert index.tolist() == [0, 2, 7]
    for row, total in zip(index.tolist(), sums, strict=True):
        expected = sum((values[i] for i in range(6) if int(rows[i]) == row), torch.zeros(3))
        torch.testing.assert_close(total, expected)
