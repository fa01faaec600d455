"""Composed projections: FAT section 3.4 as loops, the routing's properties, and the starting scale."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fieldctr.errors import UserError
from fieldctr.nn.field_matrices import ComposedMatrices, FreeMatrices, Routed, Routing, field_matrices, project

SHAPES = {"q": (4, 4), "ffn_in": (4, 8)}


def routed(num_bases: int = 5, top_k: int = 2, routing: Routing = "topk") -> Routed:
    return Routed(num_bases=num_bases, top_k=top_k, meta_dim=3, routing=routing, phi="learned")


@pytest.mark.parametrize("routing", ["topk", "dense"])
def test_a_composed_matrix_is_the_softmax_mixture_of_the_best_bases(routing: Routing) -> None:
    module = ComposedMatrices(6, SHAPES, routed(routing=routing))
    for role, (d_in, d_out) in SHAPES.items():
        for f in range(6):
            scores = [float((module.meta[f] @ module.router[role][:, m]).detach()) for m in range(5)]
            best = sorted(range(5), key=lambda m: -scores[m])[: 2 if routing == "topk" else 5]
            total = sum(torch.tensor(scores[m]).exp() for m in best)
            expected = torch.zeros(d_in, d_out)
            for m in best:
                expected += torch.tensor(scores[m]).exp() / total * module.bases[role][m]
            assert_close(module()[role][f], expected)


def test_a_field_uses_exactly_top_k_bases_and_their_shares_sum_to_one() -> None:
    alpha = ComposedMatrices(6, SHAPES, routed()).routing("q")
    assert ((alpha > 0).sum(1) == 2).all()
    assert_close(alpha.sum(1), torch.ones(6))


def test_a_basis_that_no_field_chose_has_no_gradient() -> None:
    module = ComposedMatrices(2, SHAPES, routed(num_bases=16))
    module()["q"].square().sum().backward()
    used = module.routing("q").sum(0) > 0
    grad = module.bases["q"].grad
    assert grad is not None
    assert 2 <= int(used.sum()) <= 4
    assert torch.equal(grad.flatten(1).abs().sum(1) > 0, used)


def test_a_router_that_picks_basis_f_for_field_f_makes_free_matrices() -> None:
    module = ComposedMatrices(4, SHAPES, Routed(num_bases=4, top_k=1, meta_dim=4, routing="topk", phi="learned"))
    nn.init.eye_(module.meta)
    for role in SHAPES:
        nn.init.eye_(module.router[role])
    assert all(torch.equal(module()[role], module.bases[role]) for role in SHAPES)


@pytest.mark.parametrize("top_k", [1, 3, 8])
def test_composed_and_free_matrices_start_at_the_same_scale(top_k: int) -> None:
    shapes = {"q": (64, 64)}
    composed = ComposedMatrices(24, shapes, routed(num_bases=32, top_k=top_k))()["q"]
    for matrices in (composed, FreeMatrices.drawn(24, shapes)()["q"]):
        assert_close(float(matrices.detach().std()), 1 / 8, rtol=0.05, atol=0)


def test_routing_is_the_same_under_autocast() -> None:
    module = ComposedMatrices(24, SHAPES, routed(num_bases=32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = module()
    assert all(torch.equal(cast[role], matrices) for role, matrices in module().items())


def test_kinds_differ_in_how_many_matrices_they_hold() -> None:
    sizes = {kind: len(field_matrices(kind, 6, SHAPES, routed())()["q"]) for kind in ("hyper", "full", "shared")}
    assert sizes == {"hyper": 6, "full": 6, "shared": 1}
    with pytest.raises(UserError, match="top_k=6 exceeds"):
        field_matrices("hyper", 6, SHAPES, routed(top_k=6))


@pytest.mark.parametrize("count", [1, 3])
def test_each_field_is_projected_by_its_own_matrix(count: int) -> None:
    tokens, matrices = torch.randn(3, 5, 4), torch.randn(count, 4, 2)
    projected = project(tokens, matrices)
    for f in range(3):
        for b in range(5):
            assert_close(projected[f, b], tokens[f, b] @ matrices[f % count])
