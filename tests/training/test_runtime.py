"""The machine's choices: stated, remembered, and refused where they cannot be had."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from fieldctr import processor
from fieldctr.config import RuntimeConfig
from fieldctr.errors import UserError
from fieldctr.training import runtime as r


def start(cache: Path, *, precision: r.Precision = "fp32", deterministic: bool = True, **changes: Any) -> r.Runtime:
    config = RuntimeConfig(**({"device": "cpu", "threads": 1, "matmul": "mkl"} | changes))
    return r.Runtime.start(config, precision=precision, deterministic=deterministic, cache=cache)


def test_it_describes_itself_in_one_line(tmp_path: Path) -> None:
    assert start(tmp_path).describe() == "cpu, 1 thread, fp32 by mkl, deterministic"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none_is_refused_and_auto_takes_the_cpu(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"runtime\.device=cuda: torch sees 0 CUDA devices"):
        start(tmp_path, device="cuda")
    assert start(tmp_path, device="auto").device.type == "cpu"


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cpu:1", "mps", ""])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="expected auto"):
        r.choose_device(name)


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (3, 1), (8, 4), (64, 8)])
def test_threads_are_half_of_the_cores_from_1_to_8(cores: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    assert r.choose_threads() == threads


def test_auto_measures_once_and_remembers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["onednn", "mkl"])
    monkeypatch.setattr(r, "measured_matmul", lambda: next(answers))
    assert r.remembered_matmul(tmp_path, 1) == "onednn"
    assert r.remembered_matmul(tmp_path, 1) == "onednn"
    assert r.remembered_matmul(tmp_path, 2) == "mkl"  # another machine, as far as products go


def test_another_set_of_shapes_is_measured_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["onednn", "mkl"])
    monkeypatch.setattr(r, "measured_matmul", lambda: next(answers))
    assert r.remembered_matmul(tmp_path, 1) == "onednn"
    monkeypatch.setattr(r, "SHAPES", r.SHAPES[:1])
    assert r.remembered_matmul(tmp_path, 1) == "mkl"


@pytest.mark.parametrize(("batched", "library"), [(0.5, "onednn"), (0.9, "mkl"), (3.0, "mkl")])
def test_all_shapes_together_decide(batched: float, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN is as fast on the plain product; its seconds on the batched one, in those of MKL, decide."""

    def timed(a: torch.Tensor, b: torch.Tensor) -> tuple[dict[str, float], torch.Tensor]:
        return {"mkl": 1.0, "onednn": 1.0 if a.dim() == 2 else batched}, a @ b

    monkeypatch.setattr(r, "fastest", timed)
    assert r.measured_matmul() == library


def test_the_measurement_gives_a_library_and_leaves_the_switch(tmp_path: Path) -> None:
    torch.set_float32_matmul_precision("highest")
    assert r.measured_matmul() in r.SWITCH
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_library_that_loses_digits_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(r, "FP32_ERROR", 0.0)
    assert r.measured_matmul() == "mkl"
    with pytest.raises(UserError, match=r"runtime\.matmul=onednn computes fp32 products in bf16"):
        start(tmp_path, matmul="onednn")


def test_accuracy_tells_fp32_from_bf16() -> None:
    a = torch.randn(64, 512, generator=torch.Generator().manual_seed(0))
    assert r.accurate(a @ a.T, a, a.T)
    assert not r.accurate((a.bfloat16() @ a.bfloat16().T).float(), a, a.T)


def test_tf32_on_a_cpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"trainer\.precision=tf32 needs a CUDA device"):
        start(tmp_path, precision="tf32")


def test_emulated_bf16_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "native_bf16", lambda: False)
    with pytest.warns(UserWarning, match="emulates bf16"):
        runtime = start(tmp_path, precision="bf16")
    with runtime.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


def test_determinism_is_set_and_unset(tmp_path: Path) -> None:
    start(tmp_path)
    assert torch.are_deterministic_algorithms_enabled()
    start(tmp_path, deterministic=False)
    assert not torch.are_deterministic_algorithms_enabled()


def test_peak_memory_sees_an_allocation_and_starts_anew(tmp_path: Path) -> None:
    before = start(tmp_path).peak_memory_mb()
    block = torch.ones(64 * 2**20 // 4)
    runtime = start(tmp_path)
    assert runtime.peak_memory_mb() > before + 32
    del block
    assert start(tmp_path).peak_memory_mb() < before + 48


def test_matmul_gflops_is_a_rate_of_this_century(tmp_path: Path) -> None:
    assert 0.5 < start(tmp_path).matmul_gflops(size=256, repeats=3) < 1e5
