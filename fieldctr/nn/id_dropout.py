"""Values of a field taken for missing ones, at random, while a model trains.

Source: Volkovs et al., "DropoutNet: Addressing Cold Start in Recommender Systems", NIPS 2017, section 4.1, where the
input of a user or an item is dropped, so that the model learns to do without. Here it is one field of a sample.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fieldctr.errors import UserError, unknown
from fieldctr.inputs import Inputs
from fieldctr.schema import Schema


class IdDropout(nn.Module):
    """In training, each of some fields is missing in a sample with a probability of its own: its ids are 0 there."""

    rate: Tensor  # (fields,) of those that may be dropped
    place: Tensor  # (columns,) which of these fields each of their id columns is of
    columns: Tensor  # (columns,) of the S id columns

    def __init__(self, schema: Schema, rates: Mapping[str, float]) -> None:
        """UserError for a field that is not in the schema, or a rate outside 0 to 1."""
        super().__init__()
        places = zip(schema.fields, schema.column_offsets, strict=True)
        fields = {field.name: (field, column) for field, column in places}
        columns, place = [], []
        for k, (name, rate) in enumerate(rates.items()):
            if name not in fields:
                raise UserError(f"id_dropout: {unknown('field', name, list(fields))}")
            if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < 1:
                raise UserError(f"id_dropout.{name}={rate} is not allowed: expected a number from 0, below 1")
            field, column = fields[name]
            columns += range(column, column + field.width)
            place += [k] * field.width
        self.register_buffer("rate", torch.tensor(list(rates.values())), persistent=False)
        self.register_buffer("place", torch.tensor(place), persistent=False)
        self.register_buffer("columns", torch.tensor(columns), persistent=False)

    def forward(self, inputs: Inputs) -> Inputs:
        """(B, S) ids -> (B, S) ids."""
        if not self.training:
            return inputs
        ids = inputs.ids
        kept = torch.rand(len(ids), len(self.rate), device=ids.device) >= self.rate  # B,fields
        dropped = ids.index_select(1, self.columns) * kept.index_select(1, self.place)  # B,columns
        return inputs._replace(ids=ids.index_copy(1, self.columns, dropped.to(ids.dtype)))
