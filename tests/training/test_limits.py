"""A step beside its own matrix products, and what the processor can do at most."""

import re
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from fieldctr import UserError, compose, processor
from fieldctr.commands import bench_limits, bench_train
from fieldctr.commands.machine import torch_as_it_was
from fieldctr.nn.flops import FlopCounter
from fieldctr.nn.products import products_alone
from fieldctr.training import limits
from fieldctr.training.runtime import Runtime


@pytest.fixture(autouse=True)
def _switches() -> Iterator[None]:
    with torch_as_it_was():
        yield


def test_products_are_those_of_forward_and_backward_pass_and_can_be_done_again() -> None:
    layers = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 1))
    x, wide = torch.randn(4, 6), torch.randn(1, 3, 2).expand(7, 3, 2)
    with FlopCounter() as counter:
        layers(x).sum().backward()
        torch.bmm(torch.randn(7, 2, 3), wide)  # a factor that all share
    expected = 2 * 4 * (2 * 6 * 5 + 3 * 5 * 1) + 2 * 7 * 2 * 3 * 2  # nothing is asked of x
    assert counter.flops == expected
    with FlopCounter() as again:
        products_alone(counter.products, torch.device("cpu"))()
    assert again.flops == expected
    assert again.products == counter.products


def test_a_pass_without_gradient_counts_as_one_with() -> None:
    layer, x = nn.Linear(6, 5), torch.randn(4, 6)
    found = []
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with mode(), FlopCounter() as counter:
            layer(x)
            torch.einsum("bfd,fde->bfe", torch.ones(2, 4, 3), torch.ones(4, 3, 5))
        found.append((counter.flops, len(counter.products)))
    assert found == [(2 * 4 * 6 * 5 + 2 * 2 * 4 * 3 * 5, 2)] * 3


def test_the_overhead_is_the_median_of_rounds_without_what_warms_up(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, costs = [0.0], iter([1000, 1000, 1000, 6, 9, 8])  # the first counts the products, two warm up

    def passes(seconds: float) -> None:
        now[0] += seconds

    def work() -> None:
        torch.ones(2, 3) @ torch.ones(3, 5)
        passes(next(costs))

    monkeypatch.setattr(limits, "products_alone", lambda products, device: lambda: passes(2))
    monkeypatch.setattr(limits.time, "process_time", lambda: now[0])
    found = limits.share(work, runtime, rounds=3, warm_up=2)
    assert (found.busy_s, found.products_s, found.overhead, found.gflop) == (8, 2, 4, 60e-9)


def test_bench_train_says_the_overhead_of_a_step_and_of_an_evaluation(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["model=deepfm", "trainer.batch_size=64", "num_fields=5", "vocab_size=500", "steps=2", "evaluations=1"]
    bench_train.main(compose("bench train", [*words, "runtime.threads=1", "runtime.matmul=mkl"]))
    said = capsys.readouterr().out
    assert re.search(r"deepfm, batch 64, 5 fields, \d+ rows, dim 16; cpu, 1 thread, fp32 by mkl", said)
    assert re.search(r"CPU s an evaluation of 448 rows", said)
    found = re.findall(r"([\d.]+) times its own matrix products, which alone take ([\d.]+) ms", said)
    assert len(found) == 2
    assert all(float(overhead) > 1 for overhead, _ in found)


@pytest.mark.parametrize("native", [True, False])
def test_limits_name_the_processor_and_leave_out_what_it_emulates(
    native: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = dict.fromkeys(limits.KINDS, ((8, 8), (8, 8)))
    monkeypatch.setattr(limits, "KINDS", small)
    monkeypatch.setattr(processor, "native_bf16", lambda: native)
    before = torch.get_float32_matmul_precision()
    bench_limits.main(compose("bench limits", ["rounds=1", "block_mb=1", "threads=1"]))
    assert torch.get_float32_matmul_precision() == before
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{processor.name()}, ")
    table = {line[:14].rstrip(): line[14:].split() for line in lines[2:-1]}
    assert list(table) == ["fp32 by mkl", "fp32 by onednn", "bf16 by onednn"]
    assert table["bf16 by onednn"] == (table["bf16 by onednn"][:3] if native else limits.EMULATED.split())
    assert re.fullmatch(r"memory, GB/s +copy \d+, add \d+", lines[-1])


def test_limits_take_no_rounds_of_none() -> None:
    with pytest.raises(UserError, match="rounds=0"):
        bench_limits.main(compose("bench limits", ["rounds=0"]))
