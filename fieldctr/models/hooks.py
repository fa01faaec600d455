"""Hooks: what a backbone, an enhancer or a module inside them may offer besides its forward pass.

Nothing is inherited: a class that has the method or attribute offers the hook, and `hook` is the only place that looks.
One more is asked for in a signature. A backbone or enhancer whose constructor has a parameter `field_embeddings` behind
`dim` gets a language model's vectors of the fields, (F, E); where None is its default, only if its node says where they
come from (models/ctr_model.py). Keep them as a buffer of that name: a finished run is loaded without an encoder.
An enhancer with a parameter `text_vectors` in that place gets those of the table's users and items, a list of
TextVectors, and one with `value_vectors` those of the fields and their frequent values, ValueVectors. They lie in a
folder that the run names: keep them in no buffer that is saved.
"""

import inspect
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple, Protocol, get_type_hints

from torch import Tensor, nn

from fieldctr.errors import UserError
from fieldctr.inputs import Inputs
from fieldctr.schema import Schema

# Parameters of a constructor.
FIELD_EMBEDDINGS, TEXT_VECTORS, VALUE_VECTORS = "field_embeddings", "text_vectors", "value_vectors"
READ = (FIELD_EMBEDDINGS, TEXT_VECTORS, VALUE_VECTORS)
NEAR = 2  # edits that a misspelt name takes


class Diagnostics(NamedTuple):
    """Numbers are logged at each evaluation; matrices are drawn and warnings said at the end of a run."""

    numbers: dict[str, float]
    matrices: dict[str, Tensor]  # by what they show; (F, F), or (F, n) with n unnamed columns
    warnings: list[str]


class Backbone(Protocol):
    """Hooks of a backbone."""

    reads_embeddings: bool  # False: it has tables of its own, and forward gets (B, F, 0)
    finds_pairs: bool  # False: each field counts by itself, as in LR, and `fieldctr check` expects no more
    reads_columns: bool  # True: forward gets a vector for each id column, (B, S, D); a multi-valued field has several
    layers: nn.ModuleList | nn.Sequential  # computed again in the backward pass by trainer.activation_checkpointing

    def penalty(self) -> Tensor: ...  # (), added to the training loss

    def fold(self) -> None: ...  # in place, into what evaluation and serving need and no more

    def representation(self, emb: Tensor, inputs: Inputs) -> Tensor: ...  # (B, W), what the last layer reads

    def place(self, new: Tensor, drawn: Mapping[str, Tensor]) -> None: ...  # after a warm start with new (F,) fields

    def pair_weights(self) -> Tensor: ...  # (F, F), drawn into the run folder

    def diagnostics(self, emb: Tensor, inputs: Inputs) -> Diagnostics: ...  # forward's arguments; without gradients


class Enhancer(Protocol):
    """Hooks of an enhancer. The last two, of which it has both or none, give the backbone more fields."""

    reads_inputs: bool  # True: forward gets the samples too, forward(emb, inputs)
    pretrains: bool  # True: settings of a stage before the training, which the model is built without

    def fold(self) -> None: ...  # in place, into what evaluation and serving need and no more

    def schema_with_texts(self, schema: Schema) -> Schema: ...  # what the backbone is built of: more fields, at the end

    def with_texts(self, inputs: Inputs) -> Inputs: ...  # the samples with these fields, before anything is embedded


class Module(Protocol):
    """Hooks of any module, a backbone and an enhancer too; the optimizer reads them for all weights inside."""

    lr_scale: float  # factor of the learning rate
    lr_width: int  # units that its matrices multiply: the rate falls with them (nn/width.py)
    clip_norm: float | None  # limit of its own gradient norm, apart from all others'
    frozen: bool  # its weights never move; all gradients that they ever had stay in the norm (LLaCTR's released code)


def _names(kind: type) -> tuple[str, ...]:
    return tuple(name for name in (*get_type_hints(kind), *vars(kind)) if not name.startswith("_"))


HOOKS: dict[type, tuple[str, ...]] = {kind: _names(kind) for kind in (Backbone, Enhancer, Module)}


def hook(part: object, name: str, default: Any = None) -> Any:
    """What `part` offers under the name of a hook, or `default`."""
    assert any(name in names for names in HOOKS.values()), f"no hook is called {name}"
    return getattr(part, name, default)


def check_hooks(part: nn.Module, kind: type[Backbone | Enhancer]) -> None:
    """Warn of each name that looks like a misspelt hook; UserError for a hook that should be a method and is none."""
    for name in HOOKS[kind]:
        if callable(getattr(kind, name, None)) and not callable(getattr(part, name, lambda: None)):
            value = type(getattr(part, name)).__name__
            raise UserError(f"{type(part).__name__}.{name} is {value}: the hook of that name is a method. Rename it")
    parameters = inspect.signature(type(part)).parameters
    found = [(type(part), *pair) for pair in _misspelt(set(parameters), READ)]
    found += [(type(part), *pair) for pair in _misspelt(_public(part), HOOKS[kind])]
    for module in part.modules():
        if not type(module).__module__.startswith("torch."):
            found += [(type(module), *pair) for pair in _misspelt(_public(module), HOOKS[Module])]
    for owner, name, meant in dict.fromkeys(found):
        warnings.warn(
            f"{owner.__module__}.{owner.__name__}: {name} does nothing by itself; the hook is called {meant}. Rename "
            f"it, to {meant} or to something less like it",
            stacklevel=3,
        )


def _public(module: nn.Module) -> set[str]:
    return {name for name in dir(module) if not name.startswith("_")} - set(dir(nn.Module))


def _misspelt(names: set[str], hooks: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Names within NEAR edits of a hook that is not among them, each with that hook."""
    for meant in hooks:
        if meant not in names:
            yield from ((name, meant) for name in sorted(names) if _edits(name, meant) <= NEAR)


@cache
def _edits(word: str, other: str) -> int:
    """Letters to insert, remove or replace that make one word the other (Levenshtein 1966)."""
    if abs(len(word) - len(other)) > NEAR:
        return NEAR + 1
    row = list(range(len(other) + 1))
    for i, letter in enumerate(word, 1):
        above, row = row, [i]
        for j, letter_of_other in enumerate(other):
            row.append(min(above[j + 1] + 1, row[j] + 1, above[j] + (letter != letter_of_other)))
    return row[-1]
