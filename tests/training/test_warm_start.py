"""A model that starts from a finished one on other fields: what it takes over, and what it must not."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor
from torch.testing import assert_close

from fieldctr.catalog import conf_dir
from fieldctr.data.dataset import Split
from fieldctr.errors import UserError
from fieldctr.inputs import Inputs
from fieldctr.models.ctr_model import CTRModel, build_model
from fieldctr.nn.field_matrices import aligned
from fieldctr.schema import Field, Schema
from fieldctr.training.warm_start import Matches, match_tables, take_over

DIM, WIDTH = 8, 12
WORDS = {"user": ["a", "b", "c"], "tags": ["x", "y"], "price": [], "item": ["p", "q", "r", "s"], "hour": ["0", "1"]}

pytestmark = pytest.mark.filterwarnings("ignore:model.num_bases")


def table(*names: str) -> Schema:
    return Schema(
        tuple(
            Field(name, max(2, len(WORDS[name]) + 1), width=2 if name == "tags" else 1, numeric=name == "price")
            for name in names
        )
    )


def vectors_of(schema: Schema) -> Tensor:
    """A language model's: each name has its own, on any table."""
    generator = torch.Generator().manual_seed(7)
    every = dict(zip(WORDS, torch.randn(len(WORDS), WIDTH, generator=generator), strict=True))
    return torch.stack([every[field.name] for field in schema.fields])


def maker(name: str, **options: Any) -> Callable[..., CTRModel]:
    node = yaml.safe_load((conf_dir() / f"model/{name}.yaml").read_text(encoding="utf-8"))
    node = (
        node.get("model", node)
        | {"embedding_std": 0.5}
        | ({"source": "ssft"} if options.get("phi", "learned") != "learned" else {})
    )

    def build(schema: Schema, seed: int = 2) -> CTRModel:
        names = {field.name for field in schema.fields}
        vectors = vectors_of(schema) if names <= set(WORDS) else torch.empty(schema.num_fields, WIDTH)
        model = build_model(
            schema, dim=DIM, model=node | options, enhancer=None, seed=seed, field_embeddings={"model": vectors}
        )
        return model.eval()

    return build


def matched(now: Schema, before: Schema, words: dict[str, list[str]] = WORDS) -> Matches:
    texts, texts_before = ([source[f.name] for f in each.fields] for each, source in ((now, words), (before, WORDS)))
    return match_tables(now, before, values=texts, values_before=texts_before)


def warm(build: Callable[..., CTRModel], now: Schema, before: Schema) -> tuple[CTRModel, CTRModel]:
    """The finished model on `before` and the one on `now` that started from it."""
    finished, model = build(before, 5), build(now)
    take_over(model, finished.state_dict(), matched(now, before), now, build)
    return finished, model


def batch(schema: Schema, rows: int = 6) -> Inputs:
    """Rows whose values depend on the field's name alone, whatever the order of the fields."""
    ids, values = [], []
    for field in schema.fields:
        generator = torch.Generator().manual_seed(list(WORDS).index(field.name))
        high = 2 if field.numeric else field.vocab_size
        ids.append(torch.randint(0, high, (rows, field.width), generator=generator, dtype=torch.int32))
        if field.numeric:
            values.append(torch.randn(rows, 1, generator=generator) * ids[-1])
    return Inputs(torch.cat(ids, 1), torch.cat(values, 1) if values else None)


OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("fat", {"num_bases": 4}),
    ("fat", {"projections": "full", "linear_term": True, "pair_tables": "layer_head"}),
    ("fat", {"num_bases": 4, "pooling": "flat", "width": 12, "tokens": "feature"}),
    ("fat", {"num_bases": 4, "phi": "llm_init", "pair_init": "similarity"}),
    ("fat", {"num_bases": 4, "phi": "llm_anchored", "share_layers": False}),
    ("transformer", {}),
]


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_an_equal_table_gives_equal_logits_in_any_order_of_its_fields(name: str, options: dict[str, Any]) -> None:
    before = table(*WORDS)
    for now in (before, table("item", "price", "hour", "user", "tags")):
        finished, model = warm(maker(name, **options), now, before)
        assert_close(model(batch(now)).logit, finished(batch(before)).logit, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["din", "deepfm"])
def test_a_history_keeps_the_rows_that_it_shares_and_those_of_its_own(name: str) -> None:
    """In the embeddings it has its field's rows; in DeepFM's linear term others."""

    def schema(items: list[str]) -> Schema:
        size = len(items) + 1
        return Schema((Field("user", 4), Field("hash", 6), Field("item", size), Field("past", size, 3, shares="item")))

    items = ["s", "new", "p"]
    now, before, build = schema(items), schema(WORDS["item"]), maker(name)
    finished, model = build(before, 5), build(now)
    values, values_before = ([WORDS["user"], [], own, own] for own in (items, WORDS["item"]))
    take_over(
        model, finished.state_dict(), match_tables(now, before, values=values, values_before=values_before), now, build
    )
    ids = torch.tensor([[1, 0, 1, 3, 1, 0], [2, 0, 3, 1, 1, 1], [0, 0, 0, 0, 0, 0]], dtype=torch.int32)
    as_before = torch.tensor([0, 4, -1, 1])[ids[:, 2:]].int()
    logit = finished(Inputs(torch.cat([ids[:, :2], as_before], 1))).logit
    assert_close(model(Inputs(ids)).logit, logit)


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_a_new_field_is_as_drawn_and_all_else_as_trained(name: str, options: dict[str, Any]) -> None:
    now, before = table("user", "hour", "tags", "price", "item"), table("user", "tags", "price", "item")
    build = maker(name, **options)
    drawn, (finished, model) = build(now).state_dict(), warm(build, now, before)
    trained, mine, old = finished.state_dict(), model.state_dict(), torch.tensor([0, 2, 3, 4])
    rows = slice(now.row_offsets[1], now.row_offsets[2])
    for key, value in mine.items():
        if key.endswith("field_embeddings"):
            assert torch.equal(value, drawn[key])
        elif key.endswith("table.weight"):
            assert torch.equal(value[rows], drawn[key][rows])
            assert torch.equal(torch.cat([value[: rows.start], value[rows.stop :]]), trained[key])
        elif value.shape == trained[key].shape:
            assert torch.equal(value, trained[key]), key
        elif key.endswith("pair_weight"):
            assert torch.equal(value[..., old, :][..., old], trained[key])
            assert torch.equal(value[..., 1, :], drawn[key][..., 1, :])
            assert torch.equal(value[..., 1], drawn[key][..., 1])
        else:
            axis = next(i for i, size in enumerate(value.shape) if size != trained[key].shape[i])
            assert torch.equal(value.index_select(axis, old), trained[key]), key
            if not (key.endswith(("meta", "anchor")) and options.get("phi", "learned") != "learned"):
                assert torch.equal(value.select(axis, 1), drawn[key].select(axis, 1)), key


def test_a_language_model_s_place_among_the_known_fields_survives_other_principal_axes() -> None:
    """Distances of the new field from the others as drawn on the whole table, up to one scale."""
    now, before = table(*WORDS), table("user", "tags", "price", "item")
    build = maker("fat", num_bases=4, phi="llm_frozen", meta_dim=16)
    drawn, (_, model) = build(now), warm(build, now, before)
    far = [torch.cdist(each.backbone.own[0].meta, each.backbone.own[0].meta) for each in (drawn, model)]  # ty: ignore
    assert_close(far[1] / far[1][:4, :4].norm(), far[0] / far[0][:4, :4].norm(), atol=1e-3, rtol=1e-3)
    assert not torch.allclose(drawn.backbone.own[0].meta[4], model.backbone.own[0].meta[4], atol=1e-2)  # ty: ignore


def test_aligned_undoes_a_turn_a_move_and_a_scale() -> None:
    points, new = torch.randn(9, 4), torch.tensor([False] * 6 + [True] * 3)
    turn, _ = torch.linalg.qr(torch.randn(4, 4))
    settled = 3 * points @ turn + torch.randn(4)
    assert_close(aligned(points, settled.where(~new[:, None], 0.0), new), settled[6:], atol=1e-4, rtol=1e-4)


def test_a_placebo_s_new_field_is_not_shrunk() -> None:
    new = torch.arange(40) == 39
    points, settled = torch.randn(40, 30), torch.randn(40, 30)
    spread = (aligned(points, settled, new) - settled[:39].mean(0)).norm() / settled[:39].std(0).norm()
    assert 0.6 < float(spread) < 1.5


def test_features_are_matched_by_value_and_row_0_stays_row_0() -> None:
    now, before = Schema((Field("item", 4), Field("price", 2, numeric=True))), table("price", "item")
    found = matched(now, before, WORDS | {"item": ["s", "new", "p"]})
    assert found.fields.tolist() == [1, 0]
    assert found.rows.tolist() == [2, 2 + 4, -1, 2 + 1, 0, 1]


def test_a_number_that_was_a_category_is_a_new_field() -> None:
    now = Schema((Field("item", 2, numeric=True), Field("user", 4)))
    assert matched(now, table("user", "item")).new.tolist() == [True, False]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("fat", {"top_k": 1}, r"own\.0\.(router|bases)\..*depends on the number of fields.*model\.num_bases=8"),
        ("fwfm", {}, r"pair_weight depends on the number of fields"),
        ("dnn", {}, r"depends on the number of fields"),
    ],
)
def test_a_weight_without_a_place_for_a_new_field_is_named(name: str, options: dict[str, Any], words: str) -> None:
    now, before = table(*WORDS), table("user", "tags", "price", "item")
    build = maker(name, **options)
    model = build(now)
    drawn = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(UserError, match=words):
        take_over(model, build(before).state_dict(), matched(now, before), now, build)
    assert all(torch.equal(value, drawn[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["fwfm", "dnn", "deepfm"])
def test_any_model_starts_again_on_its_own_fields_but_not_silently_in_another_order(name: str) -> None:
    before = table(*WORDS)
    finished, model = warm(maker(name), before, before)
    assert_close(model(batch(before)).logit, finished(batch(before)).logit)
    with pytest.raises(UserError, match="depends on the number of fields"):
        warm(maker(name), table("item", "price", "hour", "user", "tags"), before)


def test_the_probe_costs_no_memory_and_no_draw() -> None:
    now, before = table(*WORDS), table("user", "tags")
    build, sizes = maker("fat", num_bases=4), []

    def watched(schema: Schema, seed: int = 2) -> CTRModel:
        model = build(schema, seed)
        sizes.append(type(model.embedding.table.weight.data).__name__)  # ty: ignore[unresolved-attribute]
        return model

    model, state = build(now), torch.get_rng_state()
    take_over(model, build(before).state_dict(), matched(now, before), now, watched)
    assert sizes == ["FakeTensor"]
    assert torch.equal(torch.get_rng_state(), state)


def test_few_rows_are_part_of_more_and_keep_their_order() -> None:
    split = Split(np.arange(100, dtype=np.int32)[:, None], np.arange(100, dtype=np.float32), group=np.arange(100))
    few, more = split.sample(10, seed=1), split.sample(40, seed=1)
    assert set(few.label) < set(more.label)
    assert (np.diff(more.label) > 0).all()
    assert (more.ids[:, 0] == more.label).all()
    assert more.group is not None
    assert (more.group == more.label).all()
    assert more.values is None
    assert set(split.sample(10, seed=2).label) != set(few.label)
    with pytest.raises(UserError, match="train_rows=101 is not allowed: the train split has 100 rows"):
        split.sample(101, seed=1)
