"""Pair terms against double loops."""

import torch
from torch.testing import assert_close

from fieldctr.nn.interaction import pair_dots, pair_indices, pair_sum, upper, weighted_pair_sum

PAIRS = [(i, j) for i in range(5) for j in range(i + 1, 5)]


def test_pairs_are_numbered_row_by_row() -> None:
    first, second = pair_indices(5, device=torch.device("cpu"))
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == PAIRS


def test_every_pair_term_is_its_double_loop() -> None:
    emb, weight = torch.randn(3, 5, 4, dtype=torch.float64), torch.randn(10, dtype=torch.float64)
    dots = torch.tensor([[float(e[i] @ e[j]) for i, j in PAIRS] for e in emb], dtype=torch.float64)
    assert_close(pair_dots(emb), dots)
    assert_close(pair_sum(emb), dots.sum(1))
    assert_close(weighted_pair_sum(emb, weight), dots @ weight)


def test_upper_puts_each_pair_in_its_place_and_zero_elsewhere() -> None:
    blocks = torch.randn(10, 2, 3)
    matrix = upper(blocks, 5)
    for i in range(5):
        for j in range(5):
            expected = blocks[PAIRS.index((i, j))] if i < j else torch.zeros(2, 3)
            assert torch.equal(matrix[i, j], expected)


def test_the_gradient_of_the_pair_sum_is_that_of_its_square_form() -> None:
    """To the last bit: it is another way to compute it, and no run changes."""
    emb, outer = torch.randn(3, 5, 4, requires_grad=True), torch.randn(3)
    plain = 0.5 * (emb.sum(1).square() - emb.square().sum(1)).sum(1)
    assert torch.equal(pair_sum(emb), plain)
    gradients = [torch.autograd.grad(value, emb, outer)[0] for value in (pair_sum(emb), plain)]
    assert torch.equal(*gradients)
