"""What a module may offer, and what is said of names that only look like it."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fieldctr.errors import UserError
from fieldctr.inputs import Inputs
from fieldctr.models.ctr_model import build_model
from fieldctr.models.hooks import FIELD_EMBEDDINGS, HOOKS, Backbone, Enhancer, Module, hook
from fieldctr.schema import Schema

Node = Callable[[str], dict[str, Any]]
OFFERED = [
    (kind, name, f"{name[:cut]}{put}{name[cut + left :]}")
    for kind, names in HOOKS.items()
    for name in names
    for cut, left, put in ((0, 1, ""), (1, 1, "xy"), (2, 2, "q"), (len(name), 0, "s"), (len(name) - 2, 2, ""))
]

pytestmark = pytest.mark.usefixtures("trust_tests")


class Mean(nn.Module):
    """A backbone by its signature alone."""

    def __init__(self, schema: Schema, dim: int, field_embedding: Tensor | None = None) -> None:
        super().__init__()
        self.first = nn.Linear(dim, 1)

    def forward(self, emb: Tensor, inputs: Inputs) -> Tensor:
        return self.first(emb.mean(1)).squeeze(1)


class Own(Mean):
    def __init__(self, schema: Schema, dim: int) -> None:
        super().__init__(schema, dim)


class Needs(Mean):
    def __init__(self, schema: Schema, dim: int, vectors: Tensor) -> None:
        super().__init__(schema, dim)


class Forgets(Mean):
    def __init__(self, schema: Schema, dim: int, field_embeddings: Tensor) -> None:
        super().__init__(schema, dim)


class Shift(nn.Module):
    """An enhancer by its signature alone."""

    def __init__(self, schema: Schema, dim: int) -> None:
        super().__init__()
        self.inner = Own(schema, dim)

    def forward(self, emb: Tensor) -> tuple[Tensor, Tensor]:
        return emb.mean((1, 2)), emb.new_zeros(())


def made(schema: Schema, backbone: type = Own, enhancer: type | None = None) -> Any:
    model, added = ({"_target_": f"{__name__}.{kind.__name__}"} if kind else None for kind in (backbone, enhancer))
    return build_model(schema, dim=2, model={"embedding_std": 0.1, **(model or {})}, enhancer=added, seed=1)


def told(*given: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made(*given)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize(("kind", "name", "near"), OFFERED)
def test_a_name_within_two_edits_of_a_hook_is_told_once_with_the_hook(
    kind: type, name: str, near: str, schema: Schema, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = {Backbone: Own, Enhancer: Shift, Module: Own}[kind]
    monkeypatch.setattr(owner, near, None, raising=False)
    texts = told(schema, Own, Shift if owner is Shift else None)
    said = f"{__name__}.{owner.__name__}: {near} does nothing by itself; the hook is called {name}."
    assert sum(text.startswith(said) for text in texts) == 1


def test_hooks_themselves_and_private_names_are_not_told(schema: Schema, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Own, "penalty", lambda self: torch.ones(()), raising=False)
    monkeypatch.setattr(Own, "penaltys", 1.0, raising=False)  # what offers the hook has not misspelt it
    monkeypatch.setattr(Own, "_fold", 1.0, raising=False)
    monkeypatch.setattr(Own, "unlike", 1.0, raising=False)
    assert told(schema) == []


def test_a_misspelt_parameter_of_a_constructor_is_told(schema: Schema) -> None:
    (text,) = told(schema, Mean)
    assert f"field_embedding does nothing by itself; the hook is called {FIELD_EMBEDDINGS}." in text


def test_one_that_must_be_given_is_refused(schema: Schema) -> None:
    with pytest.raises(UserError, match="expected a backbone"):
        made(schema, Needs)
    with pytest.raises(UserError, match="Forgets reads field embeddings and got none"):
        made(schema, Forgets)


@pytest.mark.parametrize("name", ["penalty", "fold", "representation", "place", "pair_weights", "diagnostics"])
def test_a_hook_that_is_no_method_is_refused(name: str, schema: Schema, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Own, name, 0.5, raising=False)
    with pytest.raises(UserError, match=rf"Own\.{name} is float: the hook of that name is a method"):
        made(schema)


def test_only_hooks_are_looked_up() -> None:
    assert hook(Own, "reads_embeddings", True) is True
    with pytest.raises(AssertionError, match="penalities"):
        hook(Own, "penalities")
