"""The loop: learns, repeats itself, stops for the right reasons, and survives being killed anywhere."""

import copy
import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fieldctr.config import RuntimeConfig
from fieldctr.errors import UserError
from fieldctr.training.evaluate import evaluate
from fieldctr.training.pace import Pace
from fieldctr.training.runtime import Runtime
from fieldctr.training.trainer import Fit, Fitting, Trainer, eval_positions


class KilledError(Exception):
    """Stands for SIGKILL inside one process."""


def fit(planted: ModuleType, runtime: Runtime, model: nn.Module, **settings: Any) -> Fit:
    trainer = Trainer(planted.trainer_config(**settings), planted.optimizer_config(), runtime, seed=3)
    return trainer.fit(model, planted.split(2000, 1), planted.split(500, 2))


def timeless(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{key: value for key, value in record.items() if key != "seconds"} for record in history]


def equal_weights(a: nn.Module, b: nn.Module) -> bool:
    mine, other = a.state_dict(), b.state_dict()
    return all(torch.equal(mine[name], other[name]) for name in mine)


def test_a_fit_learns_and_leaves_the_best_weights_in_the_model(planted: ModuleType, runtime: Runtime) -> None:
    model = planted.Tiny(seed=1)
    done = fit(planted, runtime, model, max_epochs=10)
    found = evaluate(model, planted.split(500, 2), batch_size=100, runtime=runtime).metrics
    assert found["auc"] == done.best["valid/auc"] == max(record["valid/auc"] for record in done.history)
    assert done.best["step"] == done.best_step
    assert done.best["valid/attainable_share"] > 0.55
    assert done.samples_per_s > 0
    assert set(done.seconds) == {"train", "evaluate", "checkpoint"}


def test_two_runs_with_one_seed_are_equal_and_another_seed_is_not(planted: ModuleType, runtime: Runtime) -> None:
    models = [planted.Tiny(seed=1) for _ in range(2)]
    first, second = (fit(planted, runtime, model) for model in models)
    assert timeless(first.history) == timeless(second.history)
    assert equal_weights(*models)
    other = Trainer(planted.trainer_config(), planted.optimizer_config(), runtime, seed=4)
    third = other.fit(planted.Tiny(seed=1), planted.split(2000, 1), planted.split(500, 2))
    assert timeless(third.history) != timeless(first.history)


def test_a_step_is_the_textbooks(planted: ModuleType, runtime: Runtime) -> None:
    """Loss, clip, coupled L2, Adam: one hand-written step gives the same weights."""
    model, twin = planted.Tiny(seed=1, dropout=0.0), planted.Tiny(seed=1, dropout=0.0)
    trainer = Trainer(planted.trainer_config(clip_norm=0.1), planted.optimizer_config(), runtime, seed=3)
    fitting = Fitting(trainer, model, planted.split(64, 1), planted.split(50, 2), None)
    optimizer = torch.optim.Adam(
        [
            {"params": [twin.table.weight, twin.linear.weight], "weight_decay": 1e-5},
            {"params": twin.backbone.parameters(), "weight_decay": 1e-6},
        ],
        lr=0.01,
    )
    for epoch in range(5):
        inputs, label, _ = next(fitting.batches.shuffled(3, epoch, 0))
        fitting.train_step(inputs, label)
        loss = nn.functional.binary_cross_entropy(twin(inputs).logit.sigmoid(), label)
        optimizer.zero_grad()
        loss.backward()
        assert float(nn.utils.clip_grad_norm_(twin.parameters(), 0.1)) > 0.1
        optimizer.step()
        torch.testing.assert_close(model.state_dict(), twin.state_dict(), rtol=1e-4, atol=1e-6)


def test_the_penalty_is_part_of_the_loss(planted: ModuleType, runtime: Runtime) -> None:
    class Penalised(planted.Tiny):  # type: ignore[name-defined]
        def forward(self, inputs: Any) -> Any:
            return super().forward(inputs)._replace(penalty=self.table.weight.abs().sum())

    plain, penalised = planted.Tiny(seed=1), Penalised(seed=1)
    fit(planted, runtime, plain)
    fit(planted, runtime, penalised)
    assert penalised.table.weight.abs().sum() < 0.3 * plain.table.weight.abs().sum()


def test_patience_stops_and_each_bad_evaluation_lowers_the_rate(planted: ModuleType, runtime: Runtime) -> None:
    done = fit(planted, runtime, planted.Tiny(seed=1), max_epochs=9, evals_per_epoch=1, patience=3, min_delta=1.0,
               min_lr=4e-3)  # fmt: skip
    assert (done.stopped, done.best_step) == ("no gain in 3 evaluations", 32)
    # Of the evaluations that gained nothing, those at 64 and 96 come too early to count.
    assert {record["step"]: record["lr"] for record in done.history} == {
        **dict.fromkeys((32, 64, 96, 128), 0.01),
        **{160: 0.005, 192: 0.004},
    }


def test_a_rate_below_min_lr_is_not_raised(planted: ModuleType, runtime: Runtime) -> None:
    done = fit(planted, runtime, planted.Tiny(seed=1), max_epochs=9, patience=3, min_delta=1.0, min_lr=1.0)
    assert done.stopped == "no gain in 3 evaluations"
    assert {record["lr"] for record in done.history} == {0.01}


def test_evaluations_stand_at_fixed_steps(planted: ModuleType, runtime: Runtime) -> None:
    done = fit(planted, runtime, planted.Tiny(seed=1), max_epochs=2, evals_per_epoch=3)
    assert [record["step"] for record in done.history] == [11, 22, 32, 43, 54, 64]
    assert done.stopped == "2 epochs are over"


@pytest.mark.parametrize(("steps", "times"), [(1, 1), (1, 5), (7, 2), (10, 3), (5, 5), (3, 10)])
def test_eval_positions_end_an_epoch_and_never_exceed_it(steps: int, times: int) -> None:
    positions = eval_positions(steps, times)
    assert max(positions) == steps
    assert min(positions) >= 1
    assert len(positions) == min(steps, times)


def test_nan_stops_the_run_with_its_likely_causes(planted: ModuleType, runtime: Runtime) -> None:
    model = planted.Tiny(seed=1)
    with torch.no_grad():
        model.table.weight[3] = float("nan")
    with pytest.raises(UserError, match=r"step 16: the training loss is nan.*optimizer\.lr"):
        fit(planted, runtime, model)


def test_constant_logits_stop_the_run(planted: ModuleType, runtime: Runtime) -> None:
    class Constant(planted.Tiny):  # type: ignore[name-defined]
        def forward(self, inputs: Any) -> Any:
            output = super().forward(inputs)
            return output._replace(logit=output.logit * 0)

    with pytest.raises(UserError, match="tells no samples apart"):
        fit(planted, runtime, Constant(seed=1))


@pytest.mark.slow
@pytest.mark.parametrize("update", ["dense", "lazy"])
@pytest.mark.parametrize("step", range(1, 13))
def test_stopped_after_any_step_and_resumed_is_undisturbed(
    planted: ModuleType, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, update: str
) -> None:
    train, valid = planted.split(200, 1), planted.split(100, 2)  # 4 steps an epoch, 12 in all
    settings = planted.trainer_config()
    optimizer = planted.optimizer_config(embedding_update=update, embedding_l2=0.0)
    trainer = Trainer(settings, optimizer, runtime, seed=3)
    whole, halves = planted.Tiny(seed=1), planted.Tiny(seed=1)
    undisturbed = trainer.fit(whole, train, valid)

    saved = Fitting.save

    def save_and_die(self: Fitting) -> None:
        saved(self)
        if self.state.step == step:
            raise KilledError

    logged: list[dict[str, float]] = []
    monkeypatch.setattr(Fitting, "save", save_and_die)
    with pytest.raises(KilledError):
        trainer.fit(halves, train, valid, folder=tmp_path, log=logged.append)
    monkeypatch.setattr(Fitting, "save", saved)
    fresh = planted.Tiny(seed=77)
    torch.rand(5)  # another state of the global generator

    def rewrite(records: list[dict[str, float]]) -> None:
        logged[:] = records

    resumed = trainer.fit(fresh, train, valid, folder=tmp_path, resume=True, log=logged.append, rewrite=rewrite)
    assert equal_weights(whole, fresh)
    assert timeless(resumed.history) == timeless(undisturbed.history) == timeless(logged)


def test_resuming_a_fit_that_had_ended_gives_its_result_again(
    planted: ModuleType, runtime: Runtime, tmp_path: Path
) -> None:
    train, valid = planted.split(200, 1), planted.split(100, 2)
    trainer = Trainer(planted.trainer_config(), planted.optimizer_config(), runtime, seed=3)
    first, second = planted.Tiny(seed=1), planted.Tiny(seed=2)
    done = trainer.fit(first, train, valid, folder=tmp_path)
    again = trainer.fit(second, train, valid, folder=tmp_path, resume=True)
    assert again._replace(seconds={}) == done._replace(seconds={})
    assert equal_weights(first, second)


def test_evaluation_gives_every_row_its_logit_and_changes_nothing(planted: ModuleType, runtime: Runtime) -> None:
    model, split = planted.Tiny(seed=1), planted.split(257, 4)
    state = torch.get_rng_state()
    a = evaluate(model, split, batch_size=100, runtime=runtime)
    b = evaluate(model, split, batch_size=1, runtime=runtime)
    np.testing.assert_allclose(a.logit, b.logit, rtol=1e-4, atol=1e-6)
    assert a.logit.dtype == np.float32
    assert model.training
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(("grace_steps", "end"), [(0, 64), (96, 96), (97, 128)])
def test_evaluations_of_the_first_steps_count_against_nothing(
    planted: ModuleType, runtime: Runtime, grace_steps: int, end: int
) -> None:
    done = fit(planted, runtime, planted.Tiny(seed=1), max_epochs=9, evals_per_epoch=1, patience=1, min_delta=1.0,
               grace_steps=grace_steps)  # fmt: skip
    assert done.history[-1]["step"] == end


def test_auto_goes_by_the_rows_and_equals_its_numbers(planted: ModuleType, runtime: Runtime) -> None:
    pace = Pace.of(planted.trainer_config(batch_size="auto", evals_per_epoch="auto"), 2000)
    told = [
        fit(planted, runtime, planted.Tiny(seed=1), **one)
        for one in (pace._asdict(), dict.fromkeys(pace._fields, "auto"))
    ]
    assert timeless(told[0].history) == timeless(told[1].history)


def test_sample_eps_is_eps_in_the_unit_of_a_samples_gradient(planted: ModuleType, runtime: Runtime) -> None:
    models = []
    for eps, sample_eps in ((0.25 + 1e-3, 0.0), (1e-3, 16.0)):
        optimizer = planted.optimizer_config(eps=eps, sample_eps=sample_eps)
        models.append(planted.Tiny(seed=1))
        trainer = Trainer(planted.trainer_config(max_epochs=1, batch_size=64), optimizer, runtime, seed=3)
        trainer.fit(models[-1], planted.split(2000, 1), planted.split(500, 2))
    assert equal_weights(*models)


def test_no_step_waits_for_the_device(planted: ModuleType, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(planted.trainer_config(), planted.optimizer_config(), runtime, seed=3)
    fitting = Fitting(trainer, planted.Tiny(seed=1), planted.split(128, 1), planted.split(50, 2), None)
    batches = list(fitting.batches.shuffled(3, 0, 0))
    fitting.train_step(*batches[0])  # Adam reads scalars while it builds its state

    def waits(self: Tensor) -> float:
        raise AssertionError("a device sync inside the step")

    before = copy.deepcopy(fitting.model)
    with monkeypatch.context() as patch:
        for name in ("item", "__float__", "__bool__", "__int__", "tolist", "numpy"):
            patch.setattr(Tensor, name, waits)
        with pytest.raises(AssertionError, match="device sync"):
            float(batches[1][1].sum())
        fitting.train_step(*batches[1])
    assert not equal_weights(fitting.model, before), "the step was taken"


def test_resuming_on_another_machine_is_said(planted: ModuleType, runtime: Runtime, tmp_path: Path) -> None:
    train, valid = planted.split(200, 1), planted.split(100, 2)
    settings = planted.trainer_config(max_epochs=1)
    Trainer(settings, planted.optimizer_config(), runtime, seed=3).fit(
        planted.Tiny(seed=1), train, valid, folder=tmp_path
    )
    other = Trainer(settings, planted.optimizer_config(), replace(runtime, threads=2), seed=3)
    with pytest.warns(UserWarning, match=r"cpu, 1 thread, .* goes on on \(cpu, 2 threads"):
        other.fit(planted.Tiny(seed=1), train, valid, folder=tmp_path, resume=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.skipif(not shutil.which("g++") and not shutil.which("clang++"), reason="no C++ compiler")
def test_a_compiled_backbone_learns_the_same(planted: ModuleType, runtime: Runtime) -> None:
    losses = []
    for compiled in (False, True):
        settings = planted.trainer_config(max_epochs=1, compile=compiled)
        model = planted.Tiny(seed=1, dropout=0.0)
        trainer = Trainer(settings, planted.optimizer_config(), runtime, seed=3)
        done = trainer.fit(model, planted.split(640, 1), planted.split(64, 2))
        losses.append([record["train_loss"] for record in done.history])
        assert all("_orig_mod" not in name for name in model.state_dict())
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert torch.compiler.config.cache_key_tag == torch.backends.cpu.get_cpu_capability()


def test_compiling_without_a_compiler_is_refused(
    planted: ModuleType, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import cpp_builder, exc

    def none() -> str:
        raise exc.InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    with pytest.raises(UserError, match=r"trainer\.compile=true needs a C\+\+ compiler"):
        fit(planted, runtime, planted.Tiny(seed=1), compile=True)


def test_graphs_without_a_gpu_are_refused(planted: ModuleType, runtime: Runtime) -> None:
    with pytest.raises(UserError, match=r"trainer\.compile=graphs records CUDA graphs, and the device is cpu"):
        fit(planted, runtime, planted.Tiny(seed=1), compile="graphs")


@pytest.mark.cuda
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_a_backbone_in_graphs_learns_the_same(planted: ModuleType, tmp_path: Path) -> None:
    config = RuntimeConfig(device="cuda", threads=1, matmul="auto")
    runtime = Runtime.start(config, precision="fp32", deterministic=True, cache=tmp_path)
    losses = []
    for compiled in (False, "graphs"):
        trainer = Trainer(
            planted.trainer_config(max_epochs=2, compile=compiled), planted.optimizer_config(), runtime, seed=3
        )
        done = trainer.fit(planted.Tiny(seed=1, dropout=0.0), planted.split(640, 1), planted.split(64, 2))
        losses.append([record["train_loss"] for record in done.history])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_a_fit_learns_and_no_step_waits(planted: ModuleType, tmp_path: Path) -> None:
    config = RuntimeConfig(device="cuda", threads=1, matmul="auto")
    runtime = Runtime.start(config, precision="bf16", deterministic=True, cache=tmp_path)
    done = fit(planted, runtime, planted.Tiny(seed=1), max_epochs=10, precision="bf16")
    assert done.best["valid/attainable_share"] > 0.5
    trainer = Trainer(planted.trainer_config(precision="bf16"), planted.optimizer_config(), runtime, seed=3)
    fitting = Fitting(trainer, planted.Tiny(seed=1).cuda(), planted.split(512, 1), planted.split(50, 2), None)
    batches = list(fitting.batches.shuffled(3, 0, 0))
    fitting.train_step(*batches[0])
    torch.cuda.set_sync_debug_mode("error")
    try:
        fitting.train_step(*batches[1])
    finally:
        torch.cuda.set_sync_debug_mode("default")
