"""KAR against loops, its sizes to the unit, what knows nothing, its look-up, and what folds."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.testing import assert_close

from fieldctr.enhancers.kar import KAR
from fieldctr.errors import UserError
from fieldctr.inputs import Inputs
from fieldctr.llm.placebo import stand_in_texts
from fieldctr.models.contract import batch_of
from fieldctr.models.ctr_model import CTRModel, build_model
from fieldctr.nn.text_lookup import TextVectors
from fieldctr.schema import Field, Schema

SCHEMA = Schema(
    (Field("user", 9), Field("tags", 6, width=3), Field("price", 2, numeric=True), Field("item", 7), Field("hour", 4))
)
FM: dict[str, Any] = {"_target_": "fieldctr.models.fm.FM", "embedding_std": 0.1}
DEEP: dict[str, Any] = {"_target_": "fieldctr.models.dnn.DNN", "embedding_std": 0.1} | {
    "hidden_dims": [8],
    "dropout": 0.0,
    "batch_norm": False,
}
NODE = {"_target_": "fieldctr.enhancers.kar.KAR", "source": "text", "shared_experts": 2}
NODE |= {"dedicated_experts": 3, "expert_hidden": 6, "expert_width": 4}


def read(kind: str, columns: list[int], keys: Tensor, width: int = 5) -> TextVectors:
    generator = torch.Generator().manual_seed(len(keys))
    rows = torch.randperm(len(keys), generator=generator)
    return TextVectors.of(kind, columns, keys, rows, torch.randn(len(keys), width, generator=generator))


def texts(width: int = 5) -> list[TextVectors]:
    """Of all users but the two last ones, and of items by their number and the price, which is one of three."""
    users = torch.arange(7, dtype=torch.int32)[:, None]
    prices = torch.tensor([0.5, -1.25, 3.0]).view(torch.int32)
    items = torch.cartesian_prod(torch.arange(7, dtype=torch.int32), prices)
    return [read("user", [0], users, width), read("item", [5, 7], items, width)]


def batch(rows: int = 40) -> Inputs:
    inputs = batch_of(SCHEMA, rows)
    values = torch.tensor([0.5, -1.25, 3.0, 9.0])[torch.arange(rows) % 4][:, None]
    assert SCHEMA.num_columns == 7
    return Inputs(inputs.ids, values)


def made(read: list[TextVectors], backbone: dict[str, Any] = FM, **changes: Any) -> CTRModel:
    return build_model(SCHEMA, dim=4, model=backbone, enhancer=NODE | changes, seed=1, text_vectors=read)


def kar(model: CTRModel) -> KAR:
    assert isinstance(model.enhancer, KAR)
    return model.enhancer


@pytest.mark.parametrize(("dedicated", "expected"), [(5, 1_241_486), (6, 1_448_144)])
def test_it_has_the_parameters_of_the_released_code(dedicated: int, expected: int) -> None:
    module = KAR(
        SCHEMA, 32, texts(768), shared_experts=2, dedicated_experts=dedicated, expert_hidden=128, expert_width=32
    )
    assert sum(parameter.numel() for parameter in module.parameters()) == expected
    experts, width = 2 + 2 * dedicated, 768
    assert expected == experts * (128 * width + 128 + 128 * 32 + 32) + 2 * (width + 1) * (2 + dedicated)


def test_a_tower_is_the_sum_of_its_experts_by_its_gate() -> None:
    module = kar(made(texts()))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    vectors = torch.randn(6, 5)
    for kind, tower in enumerate(module.towers):
        outputs: Any = module.adapted(kind, vectors)
        for row, h in zip(outputs, vectors, strict=True):
            share = functional.softmax(tower.gate.weight @ h + tower.gate.bias, dim=0)  # ty: ignore
            assert share.sum().item() == pytest.approx(1)
            assert len(share) == 5
            expected = torch.zeros(4)
            for weight, expert in zip(share, [*module.shared, *tower.experts], strict=True):  # ty: ignore
                first, second = expert[0], expert[2]
                hidden = (first.weight @ h + first.bias).clamp(min=0)
                expected = expected + weight * (second.weight @ hidden + second.bias).clamp(min=0)
            assert_close(row, expected)
    assert module.towers[0].experts[0] is not module.towers[1].experts[0]  # ty: ignore


def test_each_sample_finds_the_vector_of_its_entity_and_no_other() -> None:
    inputs = batch()
    assert inputs.values is not None
    for own in texts():
        lookup = kar(made(texts())).lookups[["user", "item"].index(own.kind)]
        vectors, known = lookup(inputs)
        users = torch.arange(7, dtype=torch.int32)[:, None]
        pairs = torch.cartesian_prod(users[:, 0].float(), torch.tensor([0.5, -1.25, 3.0]))
        keys = users if own.kind == "user" else pairs
        rows = torch.randperm(len(keys), generator=torch.Generator().manual_seed(len(keys)))
        table = {tuple(key): own.vectors[row] for key, row in zip(keys.float().tolist(), rows, strict=True)}
        for i, (ids, value) in enumerate(zip(inputs.ids.tolist(), inputs.values[:, 0].tolist(), strict=True)):
            key = (float(ids[0]),) if own.kind == "user" else (float(ids[5]), value)
            assert bool(known[i]) == (key in table)
            assert torch.equal(vectors[i], table.get(key, torch.zeros(5)))
        assert 0 < int(known.sum()) < len(known)


@pytest.mark.parametrize("backbone", [FM, DEEP], ids=["fm", "dnn"])
def test_vectors_of_zeros_are_the_backbone_with_two_constant_fields(backbone: dict[str, Any]) -> None:
    read = [one._replace(vectors=torch.zeros_like(one.vectors)) for one in texts()]
    model, inputs = made(read, backbone).eval(), batch()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
        seen = model.with_texts(inputs)
        assert seen.values is not None
        added = seen.values[:, 1:]
        assert_close(added, added[:1].expand_as(added))
        assert added.any()
        plain = build_model(kar(model).schema_with_texts(SCHEMA), dim=4, model=backbone, enhancer=None, seed=3).eval()
        plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("enhancer.")})
        constant = Inputs(seen.ids, torch.cat([seen.values[:, :1], added[:1].expand_as(added)], 1))
        assert_close(model(inputs).logit, plain(constant).logit)


def test_the_backbone_starts_from_the_embeddings_it_has_without() -> None:
    model = made(texts())
    plain = build_model(SCHEMA, dim=4, model=FM, enhancer=None, seed=1)
    assert torch.equal(model.embedding.table.weight, plain.embedding.table.weight)
    assert model.schema is not None
    assert [field.name for field in model.schema.fields[5:]] == ["texts of user", "texts of item"]


def test_what_is_folded_needs_no_expert_and_gives_the_same() -> None:
    model, inputs = made(texts()), batch()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
        before = model.eval()(inputs).logit
        assert_close(model.fold()(inputs).logit, before)
    assert not list(kar(model).parameters())
    assert not [name for name in made(texts()).state_dict() if "lookups" in name]


def test_another_text_changes_the_logit_and_the_experts_learn() -> None:
    model, inputs = made(texts()), batch()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(0.1) if "bias" in name else parameter.normal_()
    output = model(inputs)
    (output.logit.sum() + output.penalty).backward()
    assert all(parameter.grad is not None for parameter in kar(model).parameters())
    assert float(output.penalty) == 0
    other = build_model(
        SCHEMA, dim=4, model=FM, enhancer=NODE, seed=1,
        text_vectors=[one._replace(vectors=one.vectors + 1) for one in texts()],
    )  # fmt: skip
    other.load_state_dict(model.state_dict())
    assert (other(inputs).logit != output.logit).any()


def test_without_texts_it_is_refused() -> None:
    with pytest.raises(UserError, match="KAR reads the texts of users and items, and got none"):
        made([])


@pytest.mark.parametrize("source", ["random", "permuted", "constant"])
def test_a_placebo_keeps_who_shares_a_text_and_nothing_of_the_meaning(source: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    vectors, rows = torch.randn(20, 50, generator=generator) * 3, torch.randint(20, (60,), generator=generator)
    found, place = stand_in_texts(vectors, rows, source, seed=1)
    own, theirs = vectors[rows], found[place]
    for i in range(60):
        same = rows == rows[i]
        assert (theirs[same] == theirs[i]).all()
        assert source == "constant" or not (theirs[~same] == theirs[i]).all(1).any()
        assert not torch.equal(own[i], theirs[i])
    if source == "permuted":
        assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, vectors.tolist()))
    elif source == "constant":
        assert_close(theirs[0], vectors.mean(0))
    else:
        assert_close(theirs.std(), own.std(), rtol=0.1, atol=0)
        assert not torch.equal(found, stand_in_texts(vectors, rows, source, seed=2)[0])
