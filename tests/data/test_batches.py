"""Batches: every row once, in an order that (seed, epoch) alone decides, resumable at any step."""

import numpy as np
import pytest
import torch

from fieldctr.data.batches import Batches, permutation
from fieldctr.data.dataset import Split

CPU = torch.device("cpu")


def split(rows: int, numeric: bool = True) -> Split:
    ids = np.arange(rows * 3, dtype=np.int32).reshape(rows, 3)
    values = np.arange(rows, dtype=np.float32)[:, None] if numeric else None
    return Split(ids, (np.arange(rows) % 2).astype(np.float32), values)


def rows_of(batches: Batches, seed: int, epoch: int, start_step: int = 0) -> list[list[int]]:
    return [inputs.ids[:, 0].div(3).int().tolist() for inputs, *_ in batches.shuffled(seed, epoch, start_step)]


@pytest.mark.parametrize(("rows", "size"), [(1, 4), (8, 4), (11, 4), (100, 7)])
def test_every_row_comes_once_and_whole(rows: int, size: int) -> None:
    data = split(rows)
    batches = Batches(data, batch_size=size, device=CPU)
    seen = []
    assert data.values is not None
    for inputs, label, weight in batches.shuffled(1, 0):
        assert weight is None
        row = inputs.ids[:, 0].numpy() // 3
        seen += row.tolist()
        assert inputs.values is not None
        assert np.array_equal(inputs.ids.numpy(), data.ids[row])
        assert np.array_equal(inputs.values.numpy(), data.values[row])
        assert np.array_equal(label.numpy(), data.label[row])
        assert (inputs.ids.dtype, label.dtype) == (torch.int32, torch.float32)
    assert sorted(seen) == list(range(rows))
    assert len(list(batches.ordered())) == len(list(batches.shuffled(1, 0))) == len(batches)


def test_ordered_keeps_the_order() -> None:
    data = split(10, numeric=False)
    parts = list(Batches(data, batch_size=4, device=CPU).ordered())
    assert [len(part.label) for part in parts] == [4, 4, 2]
    assert np.array_equal(torch.cat([part.inputs.ids for part in parts]).numpy(), data.ids)
    assert all(part.inputs.values is None for part in parts)


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    one, other = (Batches(split(50), batch_size=8, device=CPU) for _ in range(2))
    torch.manual_seed(1)
    first = rows_of(one, 1, 0)
    torch.manual_seed(2)
    assert rows_of(other, 1, 0) == first
    assert rows_of(other, 1, 1) != first
    assert rows_of(other, 2, 0) != first
    assert rows_of(other, 0, 1) != rows_of(other, 1, 0)


def test_resuming_passes_over_what_was_seen() -> None:
    batches = Batches(split(50), batch_size=8, device=CPU)
    for step in range(8):
        assert rows_of(batches, 3, 2, step) == rows_of(batches, 3, 2)[step:]


def test_an_order_is_uniform_enough() -> None:
    firsts = [int(permutation(4, seed, 0)[0]) for seed in range(2000)]
    assert np.bincount(firsts).min() > 400


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("share", [0.0, 0.25])
def test_cuda_gives_the_same_batches(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fieldctr.data.batches.RESIDENT_SHARE", share)
    data, cuda = split(1000), torch.device("cuda")
    pairs = zip(
        Batches(data, batch_size=64, device=CPU).shuffled(1, 2),
        Batches(data, batch_size=64, device=cuda).shuffled(1, 2),
        strict=True,
    )
    for (inputs, label), (cuda_inputs, cuda_label) in pairs:
        assert cuda_inputs.ids.is_cuda
        assert torch.equal(inputs.ids, cuda_inputs.ids.cpu())
        assert torch.equal(label, cuda_label.cpu())
