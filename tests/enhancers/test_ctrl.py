"""CTRL's first stage against loops and in parts; what it moves, and that a plain model is what it leaves."""

import contextlib
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from fieldctr.data.dataset import Split
from fieldctr.enhancers.ctrl import CTRL, Alignment, info_nce, max_sims
from fieldctr.errors import UserError
from fieldctr.inputs import Inputs
from fieldctr.llm.text_tower import TextTower
from fieldctr.llm.tokens import Tokens
from fieldctr.models.contract import batch_of
from fieldctr.models.ctr_model import CTRModel, build_model, flops_per_sample
from fieldctr.nn.text_lookup import TextLookup, TextVectors
from fieldctr.schema import Field, Schema
from fieldctr.training.align import FrozenTexts, MaskedRows, align

CPU = torch.device("cpu")
SCHEMA = Schema((Field("user", 40), Field("tags", 6, width=3), Field("item", 30), Field("hour", 4)))
HIDDEN = {"hidden_dims": [8], "dropout": 0.0, "batch_norm": True}
MODELS: dict[str, dict[str, Any]] = {
    "fm.FM": {},
    "deepfm.DeepFM": HIDDEN,
    "dnn.DNN": HIDDEN,
    "dcnv2.DCNv2": HIDDEN | {"num_layers": 2},
    "autoint.AutoInt": {"num_layers": 2, "num_heads": 2, "head_dim": 4, "dropout": 0.1},
}
SETTINGS = CTRL(
    source="text", text_tower="frozen", max_rows=None, epochs=2, batch_size=16, lr=5e-3, warmup_steps=2,
    temperature=0.7, width=12, subspaces=3, subspace_width=5, mask=0.3, seed=1,
)  # fmt: skip
NODE = {"_target_": "fieldctr.enhancers.ctrl.CTRL"} | {
    key: getattr(SETTINGS, key) for key in SETTINGS.__dataclass_fields__
}
each_model = pytest.mark.parametrize("name", MODELS)


def model_node(name: str) -> dict[str, Any]:
    return {"_target_": f"fieldctr.models.{name}", "embedding_std": 0.01} | MODELS[name]


def made(name: str, enhancer: dict[str, Any] | None = None) -> CTRModel:
    return build_model(SCHEMA, dim=6, model=model_node(name), enhancer=enhancer, seed=3)


def rows(count: int = 48) -> Split:
    """Each of another user and item as often as there are some, and labels that would be an error if read."""
    ids = batch_of(SCHEMA, count).ids.numpy()
    ids[:, 0], ids[:, 4] = np.arange(count) % 40, np.arange(count) * 7 % 30
    return Split(ids, np.full(count, np.nan, np.float32))


def texts(split: Split, width: int = 9) -> TextVectors:
    """A vector for each user."""
    keys = torch.arange(40, dtype=torch.int32)[:, None]
    vectors = torch.randn(40, width, generator=torch.Generator().manual_seed(1))
    return TextVectors.of("row", [0], keys, torch.arange(40), vectors)


class Silent:
    def __init__(self, steps: int) -> None:
        self.steps, self.seen = steps, 0

    def tick(self, step: int, epoch: float, loss: Any) -> None:
        self.seen = step

    def say(self, line: str) -> None: ...


def aligned(model: CTRModel, partner: nn.Module, split: Split, **changes: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return align(
            model, partner, split, replace(SETTINGS, **changes), device=CPU,
            watch=lambda steps: contextlib.nullcontext(Silent(steps)),
        )  # fmt: skip


@pytest.mark.parametrize(("n", "m", "subspaces", "width"), [(3, 4, 2, 5), (1, 6, 3, 1), (5, 5, 1, 4)])
def test_the_similarity_of_sub_spaces_is_a_double_loop(n: int, m: int, subspaces: int, width: int) -> None:
    torch.manual_seed(n)
    one, other = torch.randn(n, subspaces, width), torch.randn(m, subspaces, width)
    forth, back = max_sims(one, other)
    for i in range(n):
        for j in range(m):
            there = sum(max(float(a @ b) for b in other[j]) for a in one[i])
            here = sum(max(float(a @ b) for a in one[i]) for b in other[j])
            assert float(forth[i, j]) == pytest.approx(there, rel=1e-5, abs=1e-6)
            assert float(back[i, j]) == pytest.approx(here, rel=1e-5, abs=1e-6)


def naive_loss(one: Tensor, other: Tensor, temperature: float) -> tuple[float, int]:
    """Both directions, sample by sample, all others of the batch being negatives."""
    loss, first = 0.0, 0
    for here, there in ((one, other), (other, one)):
        for i in range(len(one)):
            scores = [sum(max(float(a @ b) for b in text) for a in here[i]) / temperature for text in there]
            loss -= scores[i] - math.log(sum(map(math.exp, scores)))
            first += scores[i] == max(scores)
    return loss / (2 * len(one)), first


@pytest.mark.parametrize("products", [1, 200, 1 << 20])
def test_the_loss_is_that_of_loops_and_its_gradient_in_parts_that_of_the_whole(products: int) -> None:
    torch.manual_seed(2)
    one, other = (torch.randn(11, 3, 4, requires_grad=True) for _ in range(2))
    loss, first = info_nce(one, other, temperature=0.7, products=products)
    expected, wanted = naive_loss(one.detach(), other.detach(), 0.7)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    assert int(first) == wanted
    got = torch.autograd.grad(loss, [one, other])
    whole = torch.autograd.grad(info_nce(one, other, temperature=0.7)[0], [one, other])
    for mine, theirs in zip(got, whole, strict=True):
        assert theirs.abs().sum() > 0
        assert_close(mine, theirs)


def test_sub_vectors_are_standardised_pass_two_maps_and_have_length_one() -> None:
    alignment = Alignment(4, 9, SETTINGS)
    for side, width in ((0, 4), (1, 9)):
        vectors = torch.randn(5, width) * 1e-5
        vectors[:, 0] = 7.0
        first, second = alignment.maps[side]  # ty: ignore
        found = alignment.sub_vectors(side, vectors)
        spread = vectors.std(0, correction=0)
        scaled = (vectors - vectors.mean(0)) / torch.where(spread > 0, spread, 1)
        for i, vector in enumerate(scaled):
            both = second.weight @ (first.weight @ vector + first.bias) + second.bias
            for m, part in enumerate(both.split(5)):
                assert_close(found[i, m], part / part.norm())


def test_the_rate_rises_from_a_fiftieth_and_stays() -> None:
    settings = replace(SETTINGS, lr=0.5, warmup_steps=4)
    assert [settings.rate(step) for step in (0, 2, 4, 9)] == pytest.approx([0.01, 0.255, 0.5, 0.5])
    assert replace(settings, warmup_steps=0).rate(0) == pytest.approx(0.01)


@each_model
def test_a_representation_is_what_the_last_layer_reads(name: str) -> None:
    model, inputs = made(name).eval(), batch_of(SCHEMA, 7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
        found, backbone = model.representation(inputs), model.backbone
        linear = backbone.linear(inputs) if hasattr(backbone, "linear") else torch.zeros(7)  # ty: ignore
        if name == "autoint.AutoInt":
            readout: Any = backbone.readout
            expected = found @ readout.weight.flatten() + readout.bias
        elif name == "fm.FM":
            expected = linear + found.sum(1)
        elif name == "deepfm.DeepFM":
            expected = linear + found[:, :6].sum(1) + backbone.mlp.last(found[:, 6:]).squeeze(1)  # ty: ignore
        else:
            last: Any = backbone.mlp.last if name == "dnn.DNN" else backbone.last  # ty: ignore
            expected = last(found).squeeze(1)
        assert_close(model(inputs).logit, expected)


@each_model
def test_the_model_is_the_backbone_s_in_every_weight_and_operation(name: str) -> None:
    """What serves costs nothing more: the same modules, parameters, operations and logits."""
    plain, inputs = made(name).eval(), batch_of(SCHEMA, 9)
    model = made(name, NODE).eval()
    assert model.enhancer is None
    assert [type(part) for part in model.modules()] == [type(part) for part in plain.modules()]
    assert model.num_parameters() == plain.num_parameters()
    assert flops_per_sample(model, SCHEMA) == flops_per_sample(plain, SCHEMA)
    for (key, value), (other, expected) in zip(model.state_dict().items(), plain.state_dict().items(), strict=True):
        assert key == other
        assert torch.equal(value, expected)
    with torch.no_grad():
        assert torch.equal(model(inputs).logit, plain(inputs).logit)
        assert torch.equal(model.fold()(inputs).logit, plain.fold()(inputs).logit)


@each_model
@pytest.mark.parametrize("views", [False, True], ids=["texts", "views"])
def test_the_stage_moves_what_the_last_layer_reads_and_nothing_behind_it(name: str, views: bool) -> None:
    split, model, drawn = rows(), made(name), made(name).state_dict()
    partner = MaskedRows(model, SCHEMA, 0.5) if views else FrozenTexts(texts(split), SCHEMA.num_columns)
    found = aligned(model, partner, split)
    assert found.steps == 6
    assert len(found.history) == 2
    behind = ("backbone.linear", "backbone.mlp.last", "backbone.last", "backbone.readout")
    assert "embedding.table.weight" in found.moved
    assert not [key for key in found.moved if key.startswith(behind)]
    ahead = [key for key, value in drawn.items() if not key.startswith(behind) and value.is_floating_point()]
    assert {key for key in found.moved if "num_batches" not in key} == set(ahead)
    for key, value in model.state_dict().items():
        assert torch.equal(value, found.moved.get(key, drawn[key]))


def test_without_an_epoch_it_moves_nothing() -> None:
    split, model = rows(), made("deepfm.DeepFM")
    found = aligned(model, FrozenTexts(texts(split), SCHEMA.num_columns), split, epochs=0)
    assert (found.moved, found.history, found.steps) == ({}, [], 0)


def test_views_find_their_texts_and_only_where_these_tell_them_apart() -> None:
    split = rows()
    shares = {}
    for meaning, vectors in (("own", texts(split)), ("none", texts(split)._replace(vectors=torch.ones(40, 9)))):
        history = aligned(made("dnn.DNN"), FrozenTexts(vectors, SCHEMA.num_columns), split, epochs=40).history
        shares[meaning] = history[-1]["accuracy"]
    assert shares["own"] > 0.5
    assert shares["none"] < 0.2


@pytest.mark.parametrize(("shape", "told"), [((2, 3, 4), r"\(2, 3, 4\)"), ((7, 3), r"\(7, 3\)"), ((2,), r"\(2,\)")])
def test_a_representation_that_is_no_vector_for_each_sample_is_told(
    shape: tuple[int, ...], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, model = rows(), made("dnn.DNN")
    monkeypatch.setattr(type(model.backbone), "representation", lambda self, emb, inputs: torch.zeros(shape))
    with pytest.raises(UserError, match=rf"DNN\.representation gives shape {told} for 2 samples: expected a vector"):
        aligned(model, FrozenTexts(texts(split), SCHEMA.num_columns), split)


def test_a_loss_that_is_no_number_leaves_nothing() -> None:
    split = rows()
    vectors = texts(split)._replace(vectors=torch.full((40, 9), math.nan))
    with pytest.raises(UserError, match=r"the first stage of CTRL: the loss of epoch 1 is nan\. Lower enhancer\.lr"):
        aligned(made("dnn.DNN"), FrozenTexts(vectors, SCHEMA.num_columns), split)


class Words(nn.Module):
    """A language model of one layer with dropout: the mean vector of a text's tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.drop = nn.Embedding(20, 7), nn.Dropout(0.4)

    def forward(self, tokens: list[list[int]]) -> Tensor:
        return torch.stack([self.drop(self.table(torch.tensor(ids))).mean(0) for ids in tokens])


def tower(micro_batch: int) -> TextTower:
    torch.manual_seed(4)
    model = Words()
    each = [[i % 20, *range(i % 3)] for i in range(40)]
    tokens = Tokens(np.concatenate(each), np.cumsum([len(ids) for ids in each]), cut=0)
    encoder: Any = SimpleNamespace(model=model, embed=model)
    return TextTower(encoder, tokens, TextLookup(texts(rows()), SCHEMA.num_columns), micro_batch=micro_batch)


@pytest.fixture
def whole() -> Tensor:
    """The gradient of a loss over a batch's texts, all of them read at once."""
    return gradient(tower(1000).eval())


def gradient(tower: TextTower) -> Tensor:
    torch.manual_seed(5)
    found = tower(Inputs(torch.from_numpy(rows().ids[:12])))
    info_nce(found[:, None], torch.randn(12, 1, 7), temperature=0.7)[0].backward()
    return tower.language_model.table.weight.grad  # ty: ignore


@pytest.mark.parametrize("micro_batch", [1, 5])
def test_a_trained_text_tower_in_parts_has_the_gradient_of_the_whole(micro_batch: int, whole: Tensor) -> None:
    assert whole.abs().sum() > 0
    assert_close(gradient(tower(micro_batch).eval()), whole)


def test_each_sample_reads_its_own_text_whatever_the_parts() -> None:
    inputs = Inputs(torch.from_numpy(rows().ids[:12]))
    trained = tower(5).eval()
    expected = torch.stack([trained.language_model(trained.tokens.of([user]))[0] for user in inputs.ids[:, 0].tolist()])
    assert_close(trained(inputs), expected)


def test_dropout_is_the_same_when_a_part_is_made_again() -> None:
    """Else the gradient would be that of another loss: a number that both passes multiply tells."""
    trained = tower(5).train()
    torch.manual_seed(6)
    found = trained(Inputs(torch.from_numpy(rows().ids[:12])))
    scale = found.detach().sum()
    found.sum().backward()
    weight: Tensor = trained.language_model.table.weight  # ty: ignore
    assert weight.grad is not None
    assert_close((weight.grad * weight).sum().detach(), scale)  # the sum is linear in the weights


@pytest.mark.parametrize("name", ["lr.LR", "ffm.FFM", "fwfm.FwFM"])
def test_a_model_that_does_not_say_what_its_last_layer_reads_is_refused(name: str) -> None:
    node = {"_target_": f"fieldctr.models.{name}", "embedding_std": 0.01}
    with pytest.raises(
        UserError, match=f"CTRL aligns what a model's last layer reads, and {name[name.index('.') + 1 :]} has"
    ):
        build_model(SCHEMA, dim=4, model=node, enhancer=NODE, seed=1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"surprise": 1}, r"no key 'enhancer\.surprise'"),
        ({"source": "words"}, r"enhancer\.source=words is not allowed: expected text \| untrained \| random"),
        ({"text_tower": "thawed"}, r"enhancer\.text_tower=thawed is not allowed: expected frozen \| trained"),
        ({"batch_size": 1}, r"enhancer\.batch_size=1 is not allowed: expected int >= 2"),
        ({"epochs": -1}, r"enhancer\.epochs=-1 is not allowed"),
    ],
)
def test_a_mistake_in_its_keys_is_named_when_the_model_is_built(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        made("fm.FM", NODE | change)
