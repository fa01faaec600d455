"""DIN: each past action of a user weighs as much as it has to do with the candidate.

Source: Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018, arXiv:1706.06978, equation 3.
The weight of action e_j for candidate v is a network's a(e_j, v, e_j - v, e_j * v), as in the authors' code; the sum
is not normalised, because its size says how strong the interest is (section 4.3).
Differs: one sum for each history and the field that it shares a table with; the paper joins the goods, shop and
category of an action first, which needs histories that run in step. ReLU instead of Dice, to be comparable with the
other networks here. Weights start near 1, because near 0, times embeddings near 0, nothing gets a gradient. A softmax
over the actions is an option (`softmax`), as in the public benchmarks.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fieldctr.config import Positive, Share
from fieldctr.errors import UserError
from fieldctr.inputs import Inputs
from fieldctr.nn.embedding import FieldColumns
from fieldctr.nn.mlp import MLP, hidden_layers, xavier
from fieldctr.schema import Schema


class History(NamedTuple):
    """A field whose columns are past values of another one."""

    field: int  # its number
    columns: slice
    target: int  # the column of the other one


class DIN(nn.Module):
    """MLP(e_1, ..., e_F), where a history is sum_j a(e_j, v) e_j over its actions j; v is the field that it shares."""

    reads_columns = True

    def __init__(
        self,
        schema: Schema,
        dim: int,
        *,
        attention_dims: list[Positive],
        softmax: bool,
        hidden_dims: list[Positive],
        dropout: Share,
        batch_norm: bool,
    ) -> None:
        super().__init__()
        self.histories = _histories(schema)
        self.columns = FieldColumns(schema)
        self.units = nn.ModuleList(Attention(dim, attention_dims, softmax=softmax) for _ in self.histories)
        self.mlp = MLP(schema.num_fields * dim, hidden_dims=hidden_dims, dropout=dropout, batch_norm=batch_norm)

    def forward(self, emb: Tensor, inputs: Inputs) -> Tensor:
        """(B, S, D) -> (B,)."""
        fields = list(self.columns.mean(emb, inputs.ids).unbind(1))
        for unit, (field, columns, target) in zip(self.units, self.histories, strict=True):
            fields[field] = unit(emb[:, columns], emb[:, target], inputs.ids[:, columns] > 0)
        return self.mlp(torch.cat(fields, 1))


class Attention(nn.Module):
    """Actions as one vector, by what each has to do with a candidate; zero where there is none."""

    def __init__(self, dim: int, hidden_dims: list[int], *, softmax: bool) -> None:
        super().__init__()
        self.softmax = softmax
        self.hidden = hidden_layers(4 * dim, hidden_dims)
        self.last = xavier(nn.Linear([4 * dim, *hidden_dims][-1], 1, bias=not softmax))  # a softmax cancels a bias
        if not softmax:
            nn.init.ones_(self.last.bias)

    def forward(self, actions: Tensor, candidate: Tensor, known: Tensor) -> Tensor:
        """(B, W, D), (B, D) and which actions there are (B, W) -> (B, D)."""
        v = candidate.unsqueeze(1).expand_as(actions)
        weight = self.last(self.hidden(torch.cat([actions, v, actions - v, actions * v], 2))).squeeze(2)  # B,W
        if self.softmax:
            weight = weight.float().masked_fill(~known, -1e9).softmax(1).to(weight.dtype)  # no -inf: a row may be empty
        weight = weight.where(known, 0.0).to(actions.dtype)
        return (weight.unsqueeze(1) @ actions).squeeze(1)


def _histories(schema: Schema) -> list[History]:
    starts = schema.column_offsets
    found = [
        History(number, slice(starts[number], starts[number] + field.width), starts[schema.index(field.shares)])
        for number, field in enumerate(schema.fields)
        if field.shares and field.width > 1  # a single value of another field, such as the last item, is no history
    ]
    if not found:
        raise UserError(
            "model=din attends from a field to its history, and no field of this table is one: add one of kind history "
            "(see dataset=kuairand_history), give one of kind multi the key shares=FIELD, or use model=dnn"
        )
    return found
