"""Start a model from a finished one, also on a table with other fields: fields are matched by name, features by value.

What a weight's axes stand for is not written down anywhere: a model with more fields shows which axes grow with them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fieldctr.errors import UserError
from fieldctr.models.ctr_model import CTRModel
from fieldctr.models.hooks import hook
from fieldctr.schema import Field, Schema

MORE, FEATURES = 10, 10_007  # fields that the probe adds, and rows of each: no axis grows by these by chance
MAPS = ".maps."  # of vector fields, in FeatureEmbedding
VECTORS = "field_embeddings"  # of a language model, which reads the names at hand


class Matches(NamedTuple):
    """Indices in the finished model of the fields and rows at hand; -1 where it has none."""

    fields: Tensor  # (F,) positions in its schema
    rows: Tensor  # (V,) rows of its tables
    unshared_rows: Tensor  # rows of a table in which histories have rows of their own, such as a linear term's
    same_fields: bool  # whether the fields are the same in the same order

    @property
    def new(self) -> Tensor:
        """(F,) bool: the fields that the finished model lacks."""
        return self.fields < 0


def match_tables(
    now: Schema, before: Schema, *, values: Sequence[list[str]], values_before: Sequence[list[str]]
) -> Matches:
    """Match two tables; `values` has the texts of each field's features by id, from 1, none for a number."""
    positions = {_kind(field): position for position, field in enumerate(before.fields)}
    fields = [positions.get(_kind(field), -1) for field in now.fields]
    rows, unshared_rows = (
        torch.tensor(_rows(one, other, fields, values, values_before))
        for one, other in ((now, before), (now.unshared(), before.unshared()))
    )
    return Matches(torch.tensor(fields), rows, unshared_rows, fields == list(range(before.num_fields)))


def _kind(field: Field) -> tuple[str, bool, bool]:
    """What a field must have in common with one of before."""
    return field.name, field.numeric, field.vector > 0


def take_over(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    matches: Matches,
    schema: Schema,
    build: Callable[[Schema], nn.Module],
) -> None:
    """Copy into `model` what the finished model's `weights` have for its matches; the rest stays as it was drawn.

    `schema` is the model's; `build` makes the same model for another one. A backbone with the hook `place` is told
    which fields are new and what it held before. UserError for a weight that cannot be matched; the model is
    then as it was.
    """
    drawn = {name: value.clone() for name, value in model.state_dict().items()}
    probe = _grown(build, schema)
    state = {}
    for name, value in drawn.items():
        if name.endswith(VECTORS) or (MAPS in name and name not in weights):  # a vector field that is new
            continue
        if name not in weights:
            raise UserError(f"the run has no weight {name}")
        growth = [more - size for more, size in zip(probe[name], value.shape, strict=True)]
        state[name] = _merged(name, value, weights[name], growth, matches)
    model.load_state_dict(drawn | state)
    place = hook(model.backbone, "place") if isinstance(model, CTRModel) else None
    if place and bool(matches.new.any()):
        backbone = "backbone."
        place(matches.new, {name.removeprefix(backbone): w for name, w in drawn.items() if name.startswith(backbone)})


def _rows(
    now: Schema, before: Schema, positions: list[int], values: Sequence[list[str]], values_before: Sequence[list[str]]
) -> list[int]:
    """For each row of the table of `now` the one in that of `before`, or -1; `positions` are those of its fields."""
    rows = []
    for field, texts, position in zip(now.fields, values, positions, strict=True):
        if not field.num_rows:
            continue
        ids = [-1] * field.vocab_size
        if position >= 0 and (texts or field.vocab_size == 1):
            ids = _ids(texts, values_before[position])
        elif position >= 0 and before.fields[position].vocab_size == field.vocab_size:  # a number, or the same hash
            ids = list(range(field.vocab_size))
        rows += [before.row_offsets[position] + i if i >= 0 else -1 for i in ids]
    return rows


def _ids(texts: list[str], before: list[str]) -> list[int]:
    """For id 0 and each value the id that it had, or -1."""
    ids = {text: i for i, text in enumerate(before, 1)}
    return [0, *(ids.get(text, -1) for text in texts)]


def _grown(build: Callable[[Schema], nn.Module], schema: Schema) -> dict[str, torch.Size]:
    """Shapes of the model's weights with MORE fields. Fake tensors: the size of its tables costs nothing."""
    with FakeTensorMode():
        more = tuple(Field(f"more {i}", FEATURES) for i in range(MORE))
        return {name: value.shape for name, value in build(Schema(schema.fields + more)).state_dict().items()}


def _merged(name: str, drawn: Tensor, before: Tensor, growth: list[int], matches: Matches) -> Tensor:
    """`before` brought into the order of the fields and features at hand, `drawn` where it has none."""
    if before.dim() != drawn.dim():
        raise UserError(f"weight {name} is {tuple(before.shape)} there and {tuple(drawn.shape)} here")
    fresh = torch.zeros((), dtype=torch.bool)
    for axis, grows in enumerate(growth):
        rows = matches.rows if drawn.shape[axis] == len(matches.rows) else matches.unshared_rows
        index = {MORE: matches.fields, MORE * FEATURES: rows}.get(grows)
        if index is not None:
            if int(index.max()) >= before.shape[axis]:
                raise UserError(f"weight {name} has {before.shape[axis]} on axis {axis}: fewer than the run's table")
            before = before.index_select(axis, index.clamp(min=0))
            fresh = fresh | (index < 0).view([-1 if i == axis else 1 for i in range(drawn.dim())])
        elif before.shape[axis] != drawn.shape[axis] or (grows and not matches.same_fields):
            why = "depends on the number of fields" if grows else "differs"
            raise UserError(
                f"axis {axis} of weight {name} {why} ({before.shape[axis]} there, {drawn.shape[axis]} here) and has no "
                "place for a new field: set in both runs the key that it follows, such as model.num_bases=8"
            )
    return torch.where(fresh, drawn, before)
