"""FAT: its equations as loops, the outcomes that follow from them, its counts, and its folded form."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close

from fieldctr.errors import UserError
from fieldctr.inputs import Inputs
from fieldctr.models.ctr_model import build_model
from fieldctr.models.fat import FAT
from fieldctr.nn.fat_block import Block
from fieldctr.nn.field_attention import Pairs, field_attention
from fieldctr.schema import Field, Schema

Make = Callable[..., Any]
DIM, HEADS = 8, 2

pytestmark = pytest.mark.filterwarnings("ignore:model.num_bases")  # small tables have as many bases as fields


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def emb(schema: Schema, inputs: Inputs) -> Tensor:
    return torch.randn(len(inputs.ids), schema.num_fields, DIM)


# --- the equations, one sample at a time ------------------------------------------------------------------------------


class Sample(NamedTuple):
    """Tokens of one sample: their vectors, their fields, and which of them are padding."""

    e: Tensor
    fields: list[int]
    absent: list[bool]


def looped(model: FAT, sample: Sample, words: dict[str, Any]) -> float:
    """The logit of one sample without dropout and linear term."""
    of, width = sample.fields, len(model.layers[0].ffn_norm.weight)
    z = [e @ at(model.widen()["token"], f) if model.widen else e for e, f in zip(sample.e, of, strict=True)]
    z = z if model.field_bias is None else [t + model.field_bias[f] for t, f in zip(z, of, strict=True)]
    for number, layer in enumerate(model.layers):
        assert isinstance(layer, Block)
        i = number % len(model.own)
        own, w = model.own[i]() | model.common[i](), None
        if model.pair_weight is not None:
            w = model.pair_weight[number % len(model.pair_weight)]
        z = looped_block(layer, z, sample, own, w, words)
    by_field = [mean([t for t, f, a in zip(z, *sample[1:], strict=True) if f == g and not a]) for g in sorted({*of})]
    pool = {"sum": sum(by_field, torch.zeros(width)), "mean": mean(by_field), "flat": torch.cat(by_field)}
    return looped_head(model.readout, pool[words["pooling"]], len(by_field), words)


def looped_head(readout: Any, pooled: Tensor, num_fields: int, words: dict[str, Any]) -> float:
    if words["head"] == "linear":
        return float(readout.weight.flatten() @ pooled + readout.bias)
    hidden, last = readout.net.hidden[0], readout.net.last
    x = pooled / num_fields if words["pooling"] == "sum" else pooled
    return float(last.weight[0] @ (hidden.weight @ x + hidden.bias).clamp(min=0) + last.bias)


def looped_block(
    layer: Block, z: list[Tensor], sample: Sample, own: dict[str, Tensor], w: Tensor | None, words: dict[str, Any]
) -> list[Tensor]:
    n1, n2, of, block = layer.attention_norm, layer.ffn_norm, sample.fields, words["block"]

    def attention(tokens: list[Tensor]) -> list[Tensor]:
        return looped_attention(tokens, sample, own, w, words)

    def ffn(tokens: list[Tensor]) -> list[Tensor]:
        return [looped_ffn(t, own, f) for t, f in zip(tokens, of, strict=True)]

    def plus(a: list[Tensor], b: list[Tensor]) -> list[Tensor]:
        return [x + y for x, y in zip(a, b, strict=True)]

    if block == "single":
        return plus(z, ffn([n2(m) for m in attention([n1(t) for t in z])]))
    if block == "quoted":
        return plus(z, ffn([n2(m) for m in attention(z)]))
    if block == "single_post":
        return [n2(t) for t in plus(z, ffn(attention(z)))]
    if block == "two_residual_pre":
        z = plus(z, attention([n1(t) for t in z]))
        return plus(z, ffn([n2(t) for t in z]))
    z = [n1(t) for t in plus(z, attention(z))]
    return [n2(t) for t in plus(z, ffn(z))]


def at(matrices: Tensor, f: int) -> Tensor:
    return matrices[f % len(matrices)]


def mean(vectors: list[Tensor]) -> Tensor:
    return torch.stack(vectors).mean(0)


def looped_attention(
    z: list[Tensor], sample: Sample, own: dict[str, Tensor], w: Tensor | None, words: dict[str, Any]
) -> list[Tensor]:
    of, width = sample.fields, len(z[0])
    size = width // HEADS

    def query(i: int, j: int) -> Tensor:
        matrix = at(own["q"], of[i])
        return z[i] @ (matrix[:, of[j] * width : (of[j] + 1) * width] if words["projections"] == "pair" else matrix)

    k, v = ([t @ at(own[role], f) for t, f in zip(z, of, strict=True)] for role in ("k", "v"))
    mixed, present = [], [j for j in range(len(z)) if not sample.absent[j]]
    for i in range(len(z)):
        parts = []
        for h in range(HEADS):
            part = slice(h * size, (h + 1) * size)
            table = None if w is None else w[h % len(w)]
            scores = torch.stack([query(i, j)[part] @ k[j][part] / size**0.5 for j in present])
            weights = torch.stack([table[of[i], of[j]] for j in present]) if table is not None else torch.ones(1)
            shares = (weights * scores).softmax(0) if words["modulation"] == "pre" else scores.softmax(0)
            shares = shares * weights if words["modulation"] == "post" else shares
            parts.append(sum((s * v[j][part] for s, j in zip(shares, present, strict=True)), torch.zeros(size)))
        mixed.append(torch.cat(parts))
    return [m @ at(own["out"], f) for m, f in zip(mixed, of, strict=True)] if "out" in own else mixed


def looped_ffn(t: Tensor, own: dict[str, Tensor], f: int) -> Tensor:
    hidden = t @ at(own["ffn_in"], f)
    return (hidden * hidden.sigmoid()) @ at(own["ffn_out"], f)


VARIANTS: list[dict[str, Any]] = [
    {},
    {"modulation": "post"},
    {"modulation": "none"},
    {"block": "two_residual_pre", "pooling": "flat"},
    {"block": "post", "pooling": "mean"},
    {"block": "quoted", "head": "mlp"},
    {"block": "single_post", "head": "mlp", "pooling": "flat"},
    {"projections": "full", "share_layers": False},
    {"projections": "shared", "output_projection": True},
    {"projections": "pair", "modulation": "none"},
    {"projections": "pair", "pair_tables": "head"},
    {"ffn": "shared", "routing": "dense"},
    {"pair_tables": "layer"},
    {"pair_tables": "layer_head", "modulation": "post"},
    {"width": 12, "projections": "full"},
    {"width": 4, "projections": "shared"},
    {"field_bias_std": None},
    {"field_bias_std": None, "width": 6, "tokens": "feature"},
    {"tokens": "feature", "pooling": "flat", "pair_tables": "head"},
    {"tokens": "feature", "width": 6, "projections": "shared", "ffn_dim": 5},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_every_variant_is_its_equation(
    variant: dict[str, Any], backbone: Make, schema: Schema, inputs: Inputs, emb: Tensor
) -> None:
    model = backbone("fat", schema, DIM, num_layers=2, num_heads=HEADS, **{"pooling": "sum"} | variant)
    words = {"modulation": "pre", "block": "single", "pooling": "sum", "head": "linear", "projections": ""} | variant
    of, absent = list(range(schema.num_fields)), torch.zeros(len(emb), schema.num_fields, dtype=torch.bool)
    if model.reads_columns:
        of, absent = [f for f, field in enumerate(schema.fields) for _ in range(field.width)], padding(schema, inputs)
        emb = torch.randn(len(inputs.ids), len(of), DIM)
    expected = [looped(model, Sample(e, of, a), words) for e, a in zip(emb, absent.tolist(), strict=True)]
    assert_close(model(emb, inputs), torch.tensor(expected), atol=1e-4, rtol=1e-4)


def padding(schema: Schema, inputs: Inputs) -> Tensor:
    """Columns of a multi-valued field with id 0, but for the first one of a field that has no id at all."""
    absent, start = torch.zeros_like(inputs.ids, dtype=torch.bool), 0
    for field in schema.fields:
        for row in range(len(inputs.ids)):
            ids = inputs.ids[row, start : start + field.width].tolist()
            for column in range(field.width if field.width > 1 else 0):
                absent[row, start + column] = ids[column] == 0 and (any(ids) or column > 0)
        start += field.width
    assert absent.any()
    return absent


def test_a_feature_s_token_is_its_row(backbone: Make, schema: Schema, inputs: Inputs, node: Make) -> None:
    """Where no field has two values, both kinds of tokens give the same logits."""
    model = build_model(schema, dim=DIM, model=node("fat") | {"tokens": "feature"}, enhancer=None, seed=1).eval()
    other = build_model(schema, dim=DIM, model=node("fat"), enhancer=None, seed=1).eval()
    single = inputs.ids.clone()
    single[:, 2:4] = 0  # of the tags, the first column remains
    assert_close(model(Inputs(single, inputs.values)), other(Inputs(single, inputs.values)), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(model(inputs).logit, other(inputs).logit, atol=1e-4)


def test_the_linear_term_is_added(backbone: Make, schema: Schema, inputs: Inputs, emb: Tensor) -> None:
    model = backbone("fat", schema, DIM, linear_term=True)
    with_term, term = model(emb, inputs), model.linear(inputs)
    model.linear = None
    assert_close(with_term, model(emb, inputs) + term)


# --- ten outcomes that follow from the equations ----------------------------------------------------------------------


def test_1_with_w_one_and_shared_matrices_it_is_standard_attention(backbone: Make, schema: Schema) -> None:
    model = backbone("fat", schema, DIM, num_heads=HEADS, projections="shared", pair_init="ones")
    (matrices,), z = model.matrices(), torch.randn(5, 3, DIM)
    ours = model.layers[0].attend(z, matrices, Pairs("pre", torch.ones(1, 5, 5), None))
    q, k, v = (z.transpose(0, 1) @ matrices["qkv"][0]).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
    assert_close(ours.transpose(0, 1), scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def test_2_with_w_zero_every_token_is_the_mean_of_the_values() -> None:
    qkv = torch.randn(5, 6, 3 * DIM)
    found = field_attention(qkv, Pairs("pre", torch.zeros(1, 5, 5), None), HEADS)
    assert_close(found, qkv[..., 2 * DIM :].mean(0).expand_as(found))


@pytest.mark.parametrize("projections", ["hyper", "full"])
def test_3_fields_permuted_with_their_parameters_give_the_same_logit(
    projections: str, backbone: Make, schema: Schema, inputs: Inputs, emb: Tensor
) -> None:
    model, order = backbone("fat", schema, DIM, projections=projections, pooling="sum"), torch.tensor([3, 0, 4, 1, 2])
    before = model(emb, inputs)
    by_field = [model.field_bias, *([model.own[0].meta] if projections == "hyper" else model.own[0].weight.values())]
    for parameter in by_field:
        parameter.copy_(parameter[order])
    model.pair_weight.copy_(model.pair_weight[:, :, order][..., order])
    assert_close(model(emb[:, order], inputs), before, atol=1e-4, rtol=1e-4)


def test_4_a_pair_weight_moves_its_query_field_only() -> None:
    qkv, w = torch.randn(5, 6, 3 * DIM), torch.randn(1, 5, 5)
    before = field_attention(qkv, Pairs("pre", w, None), HEADS)
    w[0, 1, 3] += 1
    moved = (field_attention(qkv, Pairs("pre", w, None), HEADS) - before).abs().amax((1, 2)) > 0
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


@pytest.mark.parametrize("share_layers", [True, False])
def test_7_folded_it_gives_the_same_logits_and_composes_no_more(
    share_layers: bool, backbone: Make, schema: Schema, inputs: Inputs, emb: Tensor
) -> None:
    model = backbone("fat", schema, DIM, share_layers=share_layers, output_projection=True)
    before = model(emb, inputs)
    model.fold()
    assert_close(model(emb, inputs), before, atol=1e-6, rtol=1e-6)
    names = {name.split(".")[0] for name, _ in model.named_parameters()}
    assert names == {"folded", "field_bias", "pair_weight", "layers", "readout"}
    shapes = {tuple(parameter.shape) for parameter in model.folded.parameters()}
    assert shapes == {(5, 8, 24), (5, 8, 32), (5, 32, 8), (1, 8, 8)}


def all_counts(model: FAT) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("layers", [1, 3])
def test_8_counts_follow_the_table(layers: int, backbone: Make, schema: Schema) -> None:
    fields, d, ff, bases, meta = schema.num_fields, DIM, 20, 6, 7
    matrices, rest = 3 * d * d + 2 * d * ff, fields * d + layers * 4 * d + d + 1  # bias b, norms, head
    options = {"num_layers": layers, "ffn_dim": ff, "num_bases": bases, "meta_dim": meta}

    def counted(**more: object) -> int:
        return all_counts(backbone("fat", schema, d, **{"pooling": "sum"} | options | more)) - rest

    pairs = fields**2
    assert counted() == bases * matrices + fields * meta + 5 * meta * bases + pairs
    composed = bases * matrices + fields * meta + 5 * meta * bases
    assert counted(share_layers=False) == layers * composed + pairs
    assert counted(pair_tables="layer") == composed + layers * pairs
    assert counted(pair_tables="head", num_heads=4) == composed + 4 * pairs
    assert counted(pair_tables="layer_head", num_heads=4) == composed + layers * 4 * pairs
    assert counted(projections="full") == fields * matrices + pairs
    assert counted(projections="full", share_layers=False) == layers * fields * matrices + pairs
    assert counted(projections="pair") == fields * (matrices + (fields - 1) * d * d) + pairs
    assert counted(projections="shared", share_layers=False, modulation="none") == layers * matrices
    assert counted(ffn="shared") == bases * 3 * d * d + 2 * d * ff + fields * meta + 3 * meta * bases + pairs
    assert counted(output_projection=True) - counted() == d * d
    assert counted(pooling="flat") - counted() == (fields - 1) * d
    assert counted(head="mlp") - counted() == d * d + d
    assert counted(block="quoted") - counted() == -2 * d * layers
    assert counted(width=d) - counted() == fields * d * d
    assert counted(field_bias_std=None) - counted() == -fields * d
    assert counted(field_bias_std=0.0) == counted()  # it starts at zero and is learned


def test_8_counts_of_the_paper_s_example(backbone: Make) -> None:
    """d 128, d_ff 512, 13 fields; bias, norms and head as in the table above."""
    schema, rest = Schema(tuple(Field(f"field{i}", 3) for i in range(13))), 13 * 128 + 4 * 128 + 129
    options = {"num_layers": 1, "pooling": "sum", "scrambled": False}
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


# --- what a language model's field vectors can start ------------------------------------------------------------------


@pytest.fixture
def vectors() -> Tensor:
    return torch.randn(5, 12)


@pytest.mark.parametrize("phi", ["llm_init", "llm_frozen", "llm_anchored"])
def test_meta_embeddings_are_the_vectors_principal_components(
    phi: str, backbone: Make, schema: Schema, vectors: Tensor
) -> None:
    two = {"num_layers": 2, "share_layers": False}
    model = backbone("fat_llm", schema, DIM, vectors, scrambled=False, phi=phi, meta_dim=3, **two)
    centred = vectors - vectors.mean(0)
    for own in model.own:
        distances = torch.cdist(own.meta, own.meta)
        _, axes = torch.linalg.eigh(centred.T @ centred)
        wanted = torch.cdist(centred @ axes[:, -3:], centred @ axes[:, -3:])
        assert_close(distances / distances.max(), wanted / wanted.max(), atol=1e-4, rtol=1e-4)
        assert_close(float(own.meta.std()), 0.1)
    learned = [name for name, _ in model.named_parameters() if name.endswith("meta")]
    assert learned == ([] if phi == "llm_frozen" else ["own.0.meta", "own.1.meta"])


def test_more_meta_dimensions_than_components_stay_zero(backbone: Make, schema: Schema, vectors: Tensor) -> None:
    meta = backbone("fat_llm", schema, DIM, vectors, scrambled=False, meta_dim=20).own[0].meta
    assert torch.equal(meta[:, 5:], torch.zeros(5, 15))
    assert backbone("fat_llm", schema, DIM, vectors[:1].repeat(5, 1), scrambled=False).own[0].meta.abs().sum() == 0


def test_anchored_meta_embeddings_pay_for_moving_in_training_only(
    schema: Schema, vectors: Tensor, inputs: Inputs, node: Make
) -> None:
    nodes = node("fat_llm") | {"phi": "llm_anchored", "anchor_weight": 0.5}
    model = build_model(schema, dim=DIM, model=nodes, enhancer=None, seed=1, field_embeddings={"model": vectors})
    assert float(model(inputs).penalty) == 0
    model.backbone.own[0].meta[2, 1] += 3.0
    assert_close(float(model(inputs).penalty), 4.5)
    assert float(model.eval()(inputs).penalty) == 0
    assert float(model.fold()(inputs).penalty) == 0


def test_pair_weights_can_start_as_similarities(backbone: Make, schema: Schema, vectors: Tensor) -> None:
    two = {"num_layers": 2, "pair_tables": "layer_head"}
    model = backbone("fat_llm", schema, DIM, vectors, scrambled=False, pair_init="similarity", **two)
    for i, j in itertools.product(range(5), range(5)):
        cosine = vectors[i] @ vectors[j] / (vectors[i].norm() * vectors[j].norm())
        assert_close(model.pair_weight[..., i, j], cosine.expand(2, 2))


def test_what_reads_field_vectors_says_so_when_there_are_none(backbone: Make, schema: Schema, vectors: Tensor) -> None:
    for options, key in (({"phi": "llm_init"}, r"model\.phi"), ({"pair_init": "similarity"}, r"model\.pair_init")):
        with pytest.raises(UserError, match=rf"{key}=.* reads field vectors, got none: use model=fat_llm"):
            backbone("fat", schema, DIM, **options)
    with pytest.raises(UserError, match=r"needs model\.projections=hyper, got full"):
        backbone("fat_llm", schema, DIM, vectors, projections="full")
    with pytest.raises(UserError, match="4 field vectors for 5 fields"):
        backbone("fat_llm", schema, DIM, vectors[:4])


# --- what it says of itself -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", [{}, {"block": "post"}, {"projections": "pair"}, {"tokens": "feature"}], ids=str)
def test_mean_attention_is_by_field_and_sums_to_one(
    variant: dict[str, Any], backbone: Make, schema: Schema, inputs: Inputs, emb: Tensor
) -> None:
    model = backbone("fat", schema, DIM, **variant)
    emb = torch.randn(len(emb), schema.num_columns, DIM) if model.reads_columns else emb
    attention = model.mean_attention(emb, inputs)
    assert_close(attention.sum(1), torch.ones(5))
    model.pair_weight.zero_()
    uniform = model.diagnostics(emb, inputs)
    if not model.reads_columns:
        assert_close(uniform.matrices["attention"], torch.full((5, 5), 0.2))
        assert uniform.numbers["attention_entropy"] == pytest.approx(1.0)


def test_the_first_layer_s_attention_is_the_equation_s(backbone: Make, schema: Schema, inputs: Inputs) -> None:
    model, emb = backbone("fat", schema, DIM, num_layers=1, num_heads=1), torch.randn(len(inputs.ids), 5, DIM)
    own, expected = model.own[0](), torch.zeros(5, 5)
    for e in emb:
        z = [model.layers[0].attention_norm(e[f] + model.field_bias[f]) for f in range(5)]
        for i in range(5):
            dots = torch.stack([(z[i] @ own["q"][i]) @ (z[j] @ own["k"][j]) for j in range(5)])
            expected[i] += (model.pair_weight[0, 0, i] * dots / DIM**0.5).softmax(0) / len(emb)
    assert_close(model.mean_attention(emb, inputs), expected, atol=1e-5, rtol=1e-4)


def test_stuck_pair_weights_are_named_with_the_cure(
    backbone: Make, schema: Schema, inputs: Inputs, emb: Tensor
) -> None:
    model = backbone("fat", schema, DIM, scrambled=False)
    (text,) = model.diagnostics(emb, inputs).warnings
    assert "stuck near their start" in text
    assert "model.pair_init=ones" in text
    model.pair_weight.add_(0.5)
    found = model.diagnostics(emb, inputs)
    assert not found.warnings
    assert found.numbers["pair_weight_moved"] == pytest.approx(0.5)
    assert not backbone("fat", schema, DIM, modulation="none").diagnostics(emb, inputs).warnings


def test_basis_usage_is_the_routers(backbone: Make, schema: Schema, inputs: Inputs, emb: Tensor) -> None:
    model = backbone("fat", schema, DIM, num_bases=32, top_k=2, ffn="shared")
    found, alpha = model.diagnostics(emb, inputs), [model.own[0].routing(role) for role in ("q", "k", "v")]
    assert_close(found.matrices["bases"], torch.stack(alpha).mean(0))
    used = [len({int(m) for f in range(5) for m in a[f].nonzero()}) / 32 for a in alpha]
    assert found.numbers["bases_used"] == pytest.approx(sum(used) / 3)
    assert "bases" not in backbone("fat", schema, DIM, projections="full").diagnostics(emb, inputs).matrices


# --- what else can go wrong -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_gradients_reach_every_parameter_of_every_variant(
    variant: dict[str, Any], backbone: Make, schema: Schema, inputs: Inputs, emb: Tensor
) -> None:
    model = backbone("fat", schema, DIM, scrambled=False, **variant)
    emb = torch.randn(len(emb), schema.num_columns, DIM) if model.reads_columns else emb
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
    shared, own = backbone("fat", schema, DIM), backbone("fat", schema, DIM, pair_tables="layer_head", num_layers=3)
    assert torch.equal(shared.pair_weights(), shared.pair_weight[0, 0])
    assert_close(own.pair_weights(), own.pair_weight.mean((0, 1)))
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
    with pytest.raises(UserError, match="num_heads=3 does not divide the tokens' width, 8"):
        backbone("fat", schema, DIM, num_heads=3)


def test_a_query_for_each_field_needs_one_token_for_each_field(backbone: Make, schema: Schema) -> None:
    with pytest.raises(UserError, match=r"model\.tokens=field"):
        backbone("fat", schema, DIM, projections="pair", tokens="feature")


@pytest.mark.filterwarnings("error")
def test_as_many_bases_as_fields_are_said_to_save_nothing(backbone: Make, schema: Schema) -> None:
    with pytest.warns(UserWarning, match=r"model\.num_bases=5 for 5 fields.* saves nothing"):
        backbone("fat", schema, DIM, num_bases=5)
    backbone("fat", schema, DIM, num_bases=4)
    backbone("fat", schema, DIM, num_bases=5, projections="full")


def test_the_first_version_shares_its_ffn_and_pools_the_mean(backbone: Make, schema: Schema) -> None:
    model = backbone("fat_v1", schema, DIM, scrambled=False)
    assert set(model.own[0].bases) == {"q", "k", "v"}
    assert model.readout.pooling == "mean"
    assert torch.equal(model.pair_weight, torch.ones(1, 1, 5, 5))
