"""FAT: its equations as loops, the outcomes that follow from them, its counts, and its cache."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close

from fieldctr.errors import UserError
from fieldctr.models.fat import FAT, Block, modulated_attention
from fieldctr.nn.embedding import Inputs
from fieldctr.schema import Field, Schema

Make = Callable[..., Any]
DIM, HEADS = 8, 2


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def emb(schema: Schema, inputs: Inputs) -> Tensor:
    return torch.randn(len(inputs.ids), schema.num_fields, DIM)


# --- the equations, one sample at a time ------------------------------------------------------------------------------


def looped(model: FAT, e: Tensor, *, modulation: str, block: str, pooling: str) -> float:
    """The logit of one sample without dropout and linear term."""
    fields, sets = len(e), model.matrices()
    z = [e[f] + model.field_bias[f] for f in range(fields)]
    for number, layer in enumerate(model.blocks):
        assert isinstance(layer, Block)
        own, w = sets[number % len(sets)], None
        if model.pair_weight is not None:
            w = model.pair_weight[number % len(model.pair_weight)]
        z = looped_block(layer, z, own, w, modulation, block)
    weight = model.readout.weight
    share = 1 / fields if pooling == "mean" else 1.0
    return float(model.readout.bias) + share * sum(float(weight[f % len(weight)] @ z[f]) for f in range(fields))


def looped_block(
    layer: Block, z: list[Tensor], own: dict[str, Tensor], w: Tensor | None, modulation: str, block: str
) -> list[Tensor]:
    n1, n2 = layer.attention_norm, layer.ffn_norm
    if block == "single":
        mixed = looped_attention([n1(t) for t in z], own, w, modulation)
        return [t + looped_ffn(n2(m), own, f) for f, (t, m) in enumerate(zip(z, mixed, strict=True))]
    if block == "two_residual_pre":
        mixed = looped_attention([n1(t) for t in z], own, w, modulation)
        z = [t + m for t, m in zip(z, mixed, strict=True)]
        return [t + looped_ffn(n2(t), own, f) for f, t in enumerate(z)]
    mixed = looped_attention(z, own, w, modulation)
    z = [n1(t + m) for t, m in zip(z, mixed, strict=True)]
    return [n2(t + looped_ffn(t, own, f)) for f, t in enumerate(z)]


def of(matrices: Tensor, f: int) -> Tensor:
    return matrices[f % len(matrices)]


def looped_attention(z: list[Tensor], own: dict[str, Tensor], w: Tensor | None, modulation: str) -> list[Tensor]:
    q, k, v = zip(*((t @ of(own["qkv"], f)).split(DIM) for f, t in enumerate(z)), strict=True)
    mixed = []
    for i in range(len(z)):
        heads = []
        for h in range(HEADS):
            part, size = slice(h * DIM // HEADS, (h + 1) * DIM // HEADS), DIM // HEADS
            scores = [float(q[i][part] @ k[j][part]) / size**0.5 for j in range(len(z))]
            if modulation == "pre":
                assert w is not None
                scores = [float(w[i, j]) * score for j, score in enumerate(scores)]
            shares = torch.tensor(scores).softmax(0)
            if modulation == "post":
                assert w is not None
                shares = shares * w[i]
            heads.append(sum((shares[j] * v[j][part] for j in range(len(z))), torch.zeros(size)))
        mixed.append(torch.cat(heads))
    return [m @ of(own["out"], i) for i, m in enumerate(mixed)] if "out" in own else mixed


def looped_ffn(t: Tensor, own: dict[str, Tensor], f: int) -> Tensor:
    hidden = t @ of(own["ffn_in"], f)
    return (hidden * hidden.sigmoid()) @ of(own["ffn_out"], f)


VARIANTS: list[dict[str, Any]] = [
    {},
    {"modulation": "post"},
    {"modulation": "none"},
    {"block": "two_residual_pre", "pooling": "flat"},
    {"block": "post", "pooling": "mean"},
    {"projections": "full", "share_layers": False},
    {"projections": "shared", "output_projection": True},
    {"ffn": "shared", "routing": "dense"},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_every_variant_is_its_equation(
    variant: dict[str, Any], backbone: Make, schema: Schema, inputs: Inputs, emb: Tensor
) -> None:
    model = backbone("fat", schema, DIM, num_layers=2, num_heads=HEADS, **variant)
    words = {"modulation": "pre", "block": "single", "pooling": "sum"} | variant
    expected = [looped(model, e, **{key: words[key] for key in ("modulation", "block", "pooling")}) for e in emb]
    assert_close(model(emb, inputs), torch.tensor(expected), atol=1e-4, rtol=1e-4)


def test_the_linear_term_is_added(backbone: Make, schema: Schema, inputs: Inputs, emb: Tensor) -> None:
    model = backbone("fat", schema, DIM, linear_term=True)
    with_term, term = model(emb, inputs), model.linear(inputs)
    model.linear = None
    assert_close(with_term, model(emb, inputs) + term)


# --- ten outcomes that follow from the equations ----------------------------------------------------------------------


def test_1_with_w_one_and_shared_matrices_it_is_standard_attention(backbone: Make, schema: Schema) -> None:
    model = backbone("fat", schema, DIM, num_heads=HEADS, projections="shared", pair_init="ones")
    (matrices,), z = model.matrices(), torch.randn(5, 3, DIM)
    ours = model.blocks[0].attend(z, matrices, torch.ones(5, 5))
    q, k, v = (z.transpose(0, 1) @ matrices["qkv"][0]).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
    assert_close(ours.transpose(0, 1), scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def test_2_with_w_zero_every_token_is_the_mean_of_the_values() -> None:
    q, k, v = torch.randn(3, 6, 5, 4).unbind()
    mixed = modulated_attention(q, k, v, torch.zeros(5, 5), "pre")
    assert_close(mixed, v.mean(1, keepdim=True).expand_as(v))


@pytest.mark.parametrize("projections", ["hyper", "full"])
def test_3_fields_permuted_with_their_parameters_give_the_same_logit(
    projections: str, backbone: Make, schema: Schema, inputs: Inputs, emb: Tensor
) -> None:
    model, order = backbone("fat", schema, DIM, projections=projections), torch.tensor([3, 0, 4, 1, 2])
    before = model(emb, inputs)
    by_field = [model.field_bias, *([model.own[0].meta] if projections == "hyper" else model.own[0].weight.values())]
    for parameter in by_field:
        parameter.copy_(parameter[order])
    model.pair_weight.copy_(model.pair_weight[:, order][:, :, order])
    assert_close(model(emb[:, order], inputs), before, atol=1e-4, rtol=1e-4)


def test_4_a_pair_weight_moves_its_query_field_only() -> None:
    q, k, v = torch.randn(3, 6, 5, 4).unbind()
    w = torch.randn(5, 5)
    before = modulated_attention(q, k, v, w, "pre")
    w[1, 3] += 1
    moved = (modulated_attention(q, k, v, w, "pre") - before).abs().amax((0, 2)) > 0
    assert moved.tolist() == [False, True, False, False, False]


def test_5_hyper_with_one_basis_per_field_is_full(backbone: Make, schema: Schema, inputs: Inputs, emb: Tensor) -> None:
    fields = schema.num_fields
    hyper = backbone("fat", schema, DIM, num_bases=fields, top_k=1, meta_dim=fields)
    full = backbone("fat", schema, DIM, projections="full")
    nn.init.eye_(hyper.own[0].meta)
    for role, router in hyper.own[0].router.items():
        nn.init.eye_(router)
        full.own[0].weight[role].copy_(hyper.own[0].bases[role])
    rest = {key: value for key, value in hyper.state_dict().items() if not key.startswith("own.")}
    full.load_state_dict(rest, strict=False)
    assert_close(full(emb, inputs), hyper(emb, inputs))


def test_6_each_field_uses_k_bases_and_the_others_learn_nothing(
    backbone: Make, schema: Schema, inputs: Inputs, emb: Tensor
) -> None:
    model = backbone("fat", schema, DIM, num_bases=32, top_k=2)
    with torch.enable_grad():
        model(emb, inputs).sum().backward()
    for role, bases in model.own[0].bases.items():
        alpha = model.own[0].routing(role)
        assert ((alpha > 0).sum(1) == 2).all()
        assert_close(alpha.sum(1), torch.ones(schema.num_fields))
        assert torch.equal(bases.grad.flatten(1).abs().sum(1) > 0, alpha.sum(0) > 0), role


def test_7_evaluation_composes_once_with_identical_logits(
    backbone: Make, schema: Schema, inputs: Inputs, emb: Tensor
) -> None:
    model = backbone("fat", schema, DIM)
    model.own[0].forward = counted = Counter(model.own[0].forward)
    first, second = model(emb, inputs), model(emb, inputs)
    assert counted.calls == 1
    with torch.enable_grad():
        assert torch.equal(model(emb, inputs), first)
    assert torch.equal(first, second)


class Counter:
    def __init__(self, function: Callable[[], Any]) -> None:
        self.function, self.calls = function, 0

    def __call__(self) -> Any:
        self.calls += 1
        return self.function()


def all_counts(model: FAT) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("layers", [1, 3])
def test_8_counts_follow_the_table(layers: int, backbone: Make, schema: Schema) -> None:
    fields, d, ff, bases, meta = schema.num_fields, DIM, 20, 6, 7
    matrices, rest = 3 * d * d + 2 * d * ff, fields * d + layers * 4 * d + d + 1  # bias b, norms, head
    options = {"num_layers": layers, "ffn_dim": ff, "num_bases": bases, "meta_dim": meta}

    def counted(**more: object) -> int:
        return all_counts(backbone("fat", schema, d, **options, **more)) - rest

    pairs = fields**2
    assert counted() == bases * matrices + fields * meta + 5 * meta * bases + pairs
    assert counted(share_layers=False) == layers * (bases * matrices + fields * meta + 5 * meta * bases + pairs)
    assert counted(projections="full") == fields * matrices + pairs
    assert counted(projections="full", share_layers=False) == layers * (fields * matrices + pairs)
    assert counted(projections="shared", share_layers=False, modulation="none") == layers * matrices
    assert counted(ffn="shared") == bases * 3 * d * d + 2 * d * ff + fields * meta + 3 * meta * bases + pairs
    assert counted(output_projection=True) - counted() == d * d
    assert counted(pooling="flat") - counted() == (fields - 1) * d


def test_8_counts_of_the_paper_s_example(backbone: Make) -> None:
    """d 128, d_ff 512, 13 fields; bias, norms and head as in the table above."""
    schema, rest = Schema(tuple(Field(f"field{i}", 3) for i in range(13))), 13 * 128 + 4 * 128 + 129
    options = {"num_layers": 1, "scrambled": False}
    full = backbone("fat", schema, 128, projections="full", **options)
    hyper = backbone("fat", schema, 128, num_bases=64, **options)
    assert all_counts(full) == 2_342_912 + 13**2 + rest
    assert all_counts(hyper) == 11_534_336 + 20_480 + 64 * 13 + 13**2 + rest


def test_9_a_larger_vocabulary_changes_no_dense_count(backbone: Make, schema: Schema) -> None:
    wider = Schema((Field("user", 1009), *schema.fields[1:]))
    assert all_counts(backbone("fat", wider, DIM)) == all_counts(backbone("fat", schema, DIM))


def test_10_the_number_of_heads_changes_no_count(backbone: Make, schema: Schema) -> None:
    counts = {all_counts(backbone("fat", schema, DIM, num_heads=heads)) for heads in (1, 2, 8)}
    assert len(counts) == 1


# --- what else can go wrong -------------------------------------------------------------------------------------------


def test_a_change_of_any_parameter_is_seen_in_evaluation(
    backbone: Make, schema: Schema, inputs: Inputs, emb: Tensor
) -> None:
    model, other = backbone("fat", schema, DIM), backbone("fat", schema, DIM, scrambled=False)
    model(emb, inputs)
    model.load_state_dict(other.state_dict())
    assert torch.equal(model(emb, inputs), other(emb, inputs))
    for parameter in model.own.parameters():
        parameter.mul_(1.5)  # as an optimizer or a swapped average does
        other.load_state_dict(model.state_dict())
        other.train().eval()
        assert torch.equal(model(emb, inputs), other(emb, inputs))


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_gradients_reach_every_parameter_of_every_variant(
    variant: dict[str, Any], backbone: Make, schema: Schema, inputs: Inputs, emb: Tensor
) -> None:
    model = backbone("fat", schema, DIM, scrambled=False, **variant)
    with torch.enable_grad():
        (model(emb, inputs) * torch.randn(len(emb))).sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


def test_dropout_acts_in_training_only(backbone: Make, schema: Schema, inputs: Inputs, emb: Tensor) -> None:
    model = backbone("fat", schema, DIM, dropout=0.5)
    assert torch.equal(model(emb, inputs), model(emb, inputs))
    model.train()
    assert not torch.equal(model(emb, inputs), model(emb, inputs))


def test_tokens_start_at_a_visible_scale_and_logits_small(backbone: Make, schema: Schema, inputs: Inputs) -> None:
    """Tiny tokens are blown up by the first norm (below logistic regression on KuaiRand), large logits stay."""
    for width, pooling in itertools.product((16, 64), ("sum", "mean", "flat")):
        model = backbone("fat", schema, width, scrambled=False, pooling=pooling)
        logit = model(torch.randn(len(inputs.ids), schema.num_fields, width) * 1e-4, inputs)
        assert 0.3 < float(model.field_bias.std()) < 0.7
        assert float(logit.abs().max()) < 3


def test_half_of_the_fields_are_bases_unless_told(backbone: Make) -> None:
    for fields, bases in ((5, 4), (13, 7), (40, 20)):
        schema = Schema(tuple(Field(f"field{i}", 3) for i in range(fields)))
        assert len(backbone("fat", schema, DIM).own[0].bases["q"]) == bases


def test_pair_weights_are_one_matrix(backbone: Make, schema: Schema) -> None:
    shared, own = backbone("fat", schema, DIM), backbone("fat", schema, DIM, share_layers=False, num_layers=3)
    assert torch.equal(shared.pair_weights(), shared.pair_weight[0])
    assert_close(own.pair_weights(), own.pair_weight.mean(0))
    assert torch.equal(backbone("fat", schema, DIM, modulation="none").pair_weights(), torch.ones(5, 5))


def test_autocast_changes_little(backbone: Make, schema: Schema, inputs: Inputs, emb: Tensor) -> None:
    model = backbone("fat", schema, DIM, scrambled=False, num_bases=32)
    exact = model(emb, inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = model(emb, inputs)
    assert cast.dtype == torch.float32
    assert float((cast - exact).norm() / exact.norm()) < 0.03


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_gives_the_same_logits(backbone: Make, schema: Schema, inputs: Inputs, emb: Tensor) -> None:
    model = backbone("fat", schema, DIM, linear_term=True)
    here = model(emb, inputs)
    assert inputs.values is not None
    there = model.cuda()(emb.cuda(), Inputs(inputs.ids.cuda(), inputs.values.cuda()))
    assert_close(there.cpu(), here, atol=1e-4, rtol=1e-4)


def test_heads_that_do_not_divide_the_width_are_refused(backbone: Make, schema: Schema) -> None:
    with pytest.raises(UserError, match="num_heads=3 does not divide embedding_dim=8"):
        backbone("fat", schema, DIM, num_heads=3)
