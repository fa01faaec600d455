"""Ids taken for missing ones in training: of the named fields, as often as they say, and never else."""

import pytest
import torch

from fieldctr import UserError
from fieldctr.inputs import Inputs
from fieldctr.models.ctr_model import build_model
from fieldctr.nn.id_dropout import IdDropout
from fieldctr.schema import Field, Schema

SCHEMA = Schema((Field("user", 9), Field("tags", 7, width=3), Field("price", 2, numeric=True), Field("hour", 5)))
ROWS = 4000


def inputs() -> Inputs:
    generator = torch.Generator().manual_seed(1)
    sizes = [9, 7, 7, 7, 2, 5]
    columns = [torch.randint(1, size, (ROWS,), generator=generator, dtype=torch.int32) for size in sizes]
    return Inputs(torch.stack(columns, dim=1), torch.rand(ROWS, 1, generator=generator))


@pytest.mark.parametrize("rates", [{"user": 0.3}, {"tags": 0.5, "user": 0.1}, {"price": 0.2}, {"hour": 0.0}])
def test_named_fields_are_missing_as_often_as_they_say_and_others_never(rates: dict[str, float]) -> None:
    torch.manual_seed(0)
    dropout, given = IdDropout(SCHEMA, rates), inputs()
    found = dropout(given)
    assert found.ids.dtype == given.ids.dtype
    for field, column in zip(SCHEMA.fields, SCHEMA.column_offsets, strict=True):
        own, before = (one.ids[:, column : column + field.width] for one in (found, given))
        missing = (own == 0).all(dim=1)
        rate = rates.get(field.name, 0.0)
        assert abs(float(missing.float().mean()) - rate) <= 4 * (rate * (1 - rate) / ROWS) ** 0.5
        assert torch.equal(own[~missing], before[~missing])  # a field is dropped whole or not at all
    assert found.values is given.values


def test_nothing_is_dropped_in_evaluation() -> None:
    dropout, given = IdDropout(SCHEMA, {"user": 0.9}).eval(), inputs()
    assert dropout(given) is given


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        ({"usr": 0.1}, r"no field 'usr'\. Nearest: user"),
        ({"user": 1.0}, r"id_dropout\.user=1\.0 is not allowed"),
        ({"user": -0.1}, "not allowed"),
        ({"user": "a"}, "not allowed"),
        ({"user": True}, "not allowed"),
    ],
)
def test_a_mistake_is_named(rates: dict[str, float], words: str) -> None:
    with pytest.raises(UserError, match=words):
        IdDropout(SCHEMA, rates)


def test_a_model_with_it_has_the_weights_and_the_predictions_of_one_without() -> None:
    node = {"_target_": "fieldctr.models.fm.FM", "embedding_std": 0.1}
    plain = build_model(SCHEMA, dim=4, model=node, enhancer=None, seed=1)
    dropped = build_model(SCHEMA, dim=4, model=node, enhancer=None, seed=1, id_dropout={"user": 0.5})
    assert plain.state_dict().keys() == dropped.state_dict().keys()
    given = inputs()
    with torch.no_grad():
        assert torch.equal(plain.eval()(given).logit, dropped.eval()(given).logit)
        assert not torch.equal(plain.train()(given).logit, dropped.train()(given).logit)


def test_a_missing_number_counts_for_nothing_of_its_value() -> None:
    node = {"_target_": "fieldctr.models.lr.LR"}
    model = build_model(SCHEMA, dim=2, model=node, enhancer=None, seed=1, id_dropout={"price": 0.999999})
    given = inputs()
    other = given._replace(values=given.values * 100 if given.values is not None else None)
    with torch.no_grad():
        assert torch.allclose(model.train()(given).logit, model.train()(other).logit)
