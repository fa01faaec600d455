"""Attention over fields: part by part it is the whole, forward and backward, and it keeps little."""

import itertools

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from fieldctr.nn import field_attention
from fieldctr.nn.field_attention import Modulation, Pairs

TOKENS, BATCH, HEADS, SIZE = 5, 7, 2, 4


def pairs(modulation: Modulation, tables: int, *, padded: bool) -> Pairs:
    weight = None if modulation == "none" else torch.randn(tables, TOKENS, TOKENS, requires_grad=True)
    absent = torch.rand(BATCH, TOKENS) < 0.4
    absent[:, 0] = False
    return Pairs(modulation, weight, absent if padded else None)


def both(qkv: Tensor, given: Pairs, monkeypatch: pytest.MonkeyPatch) -> list[list[Tensor]]:
    """Output and gradients with all scores kept, and computed again two samples at a time."""
    found, out_gradient = [], torch.randn(TOKENS, BATCH, HEADS * SIZE)
    read = [qkv] if given.weight is None else [qkv, given.weight]
    monkeypatch.setitem(field_attention.SLICE_SCORES, "cpu", 2 * HEADS * TOKENS**2)
    for kept in (1 << 26, 0):
        monkeypatch.setitem(field_attention.KEPT_SCORES, "cpu", kept)
        out = field_attention.field_attention(qkv, given, HEADS)
        found.append([out, *torch.autograd.grad(out, read, out_gradient.to(out.dtype))])
    return found


CASES = [*itertools.product(("pre", "post"), (1, HEADS), (False, True)), ("none", 1, False), ("none", 1, True)]


@pytest.mark.parametrize(("modulation", "tables", "padded"), CASES)
def test_in_parts_it_is_the_whole(
    modulation: Modulation, tables: int, padded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    qkv = torch.randn(TOKENS, BATCH, 3 * HEADS * SIZE, requires_grad=True)
    whole, parts = both(qkv, pairs(modulation, tables, padded=padded), monkeypatch)
    for a, b in zip(whole, parts, strict=True):
        assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_in_parts_a_scale_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    qkv, given = torch.randn(TOKENS, BATCH, 3 * HEADS * SIZE, requires_grad=True), pairs("pre", 1, padded=False)
    assert given.weight is not None
    whole, parts = both(qkv, given._replace(scale=2.0), monkeypatch)
    for a, b in zip(whole, parts, strict=True):
        assert_close(a, b, atol=1e-5, rtol=1e-5)
    assert_close(whole[0], both(qkv, given._replace(weight=2.0 * SIZE**0.5 * given.weight), monkeypatch)[0][0])


def test_in_parts_it_is_the_whole_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    qkv = torch.randn(TOKENS, BATCH, 3 * HEADS * SIZE, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        whole, parts = both(qkv, pairs("pre", 1, padded=True), monkeypatch)
    assert whole[0].dtype == parts[0].dtype == torch.bfloat16
    for a, b in zip(whole, parts, strict=True):
        assert_close(a.float(), b.float(), atol=0.05, rtol=0.05)


def test_in_parts_it_keeps_no_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    qkv, given, sizes = torch.randn(64, 3, 24, requires_grad=True), Pairs("none", None, None), []
    for kept in (1 << 26, 0):
        monkeypatch.setitem(field_attention.KEPT_SCORES, "cpu", kept)
        seen: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, seen=seen: (seen.append(x.numel()), x)[1], lambda x: x):
            field_attention.field_attention(qkv, given, 2)
        sizes.append(max(seen))
    assert sizes == [3 * 2 * 64 * 64, qkv.numel()]
