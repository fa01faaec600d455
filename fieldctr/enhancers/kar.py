"""KAR: what a language model knows of the user and of the item, adapted by experts, as two more fields of any backbone.

Source: Xi et al., "Towards Open-World Recommendation with Knowledge Augmentation from Large Language Models" (RecSys
2024, arXiv:2306.10933), section 4.3, and its released code. A tower for the user and one for the item: the mean of
experts' outputs, weighted by a gate softmax(W h + b) over all of them; some experts are shared by the towers, others
dedicated to one. Trained with the backbone on its loss alone. No expert reads the sample: after training a tower is a
table of its outputs (`fold`).
Differs: the texts are the attributes of the user and the item in sentences, as they stand (llm/texts.py), unless a
decoder is asked (`knowledge=generate`): the released answers are ChatGPT's, to prompts about nine factors of films.
Differs: the encoder reads the attributes and then the answer, of users and of items; the original does so of users
alone, because a small decoder's answer does not repeat what it was told.
Differs: each tower's output passes a linear map to the width of the embeddings, as every vector field does, because
backbones are of any width; the released code needs embeddings as wide as the output, or concatenates it to the flat
input of an MLP alone. So FM's pairs contain the two fields, and an MLP reads them at the width of the embeddings.
Differs: their first-order weights, which the released DeepFM draws from U(0, 1), start at zero as all others do here.
Differs: an entity without a text, which the released code does not have, reads a vector of zeros.
Differs: there may be more or fewer towers than two, one for each of the table's entities.
"""

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from fieldctr.config import Between, Positive
from fieldctr.errors import UserError
from fieldctr.inputs import Inputs
from fieldctr.nn.mlp import hidden_layers, xavier
from fieldctr.nn.text_lookup import TextLookup, TextVectors
from fieldctr.schema import Field, Schema

FOLD_ROWS = 1 << 14  # vectors at a time


class KAR(nn.Module):
    """The hybrid-expert adaptor; `with_texts` hands its outputs to the backbone."""

    def __init__(
        self,
        schema: Schema,
        dim: int,
        text_vectors: Sequence[TextVectors],
        *,
        shared_experts: Annotated[int, Between(0)],
        dedicated_experts: Positive,
        expert_hidden: Positive,
        expert_width: Positive,
    ) -> None:
        super().__init__()
        if not text_vectors:
            raise UserError("enhancer: KAR reads the texts of users and items, and got none")
        width = text_vectors[0].vectors.shape[1]

        def experts(count: int) -> nn.ModuleList:
            return nn.ModuleList(hidden_layers(width, [expert_hidden, expert_width]) for _ in range(count))

        self.expert_width = expert_width
        self.kinds = [read.kind for read in text_vectors]
        self.shared = experts(shared_experts)
        self.towers = nn.ModuleList(
            Tower(experts(dedicated_experts), xavier(nn.Linear(width, shared_experts + dedicated_experts)))
            for _ in text_vectors
        )
        self.lookups = nn.ModuleList(TextLookup(read, schema.num_columns) for read in text_vectors)

    def schema_with_texts(self, schema: Schema) -> Schema:
        """The backbone's: the table's fields, and behind them one of vectors for each tower."""
        more = (Field(f"texts of {kind}", 2, text="", vector=self.expert_width) for kind in self.kinds)
        return Schema((*schema.fields, *more))

    def with_texts(self, inputs: Inputs) -> Inputs:
        """The samples with the fields of `schema_with_texts`: id 1 where a text is known, and the towers' outputs."""
        ids, values = [inputs.ids], [] if inputs.values is None else [inputs.values]
        for kind, lookup in enumerate(self.lookups):
            vectors, known = lookup(inputs)
            ids.append(known[:, None].to(inputs.ids.dtype))
            values.append(self.adapted(kind, vectors))
        return Inputs(torch.cat(ids, dim=1), torch.cat(values, dim=1))

    def adapted(self, kind: int, vectors: Tensor) -> Tensor:
        """Vectors of the kind's texts through its tower: (n, E) -> (n, expert_width); as they are once folded."""
        if not len(self.towers):
            return vectors
        return self.towers[kind](vectors, self.shared).float()

    def forward(self, emb: Tensor) -> tuple[Tensor, Tensor]:
        """(B, F, D) -> extra logit (B,), penalty (): none, for the backbone reads it all."""
        return emb.new_zeros(len(emb)), emb.new_zeros(())

    def fold(self) -> None:
        """Keep each text's output in the place of its vector, and no expert."""
        for kind, lookup in enumerate(self.lookups):
            assert isinstance(lookup, TextLookup)
            parts = [self.adapted(kind, part) for part in lookup.vectors.split(FOLD_ROWS)]
            lookup.replace(torch.cat(parts), self.adapted(kind, lookup.blank[None])[0])
        self.towers, self.shared = nn.ModuleList(), nn.ModuleList()


class Tower(nn.Module):
    """The dedicated experts of one kind of entity, and the gate over these and the shared ones."""

    def __init__(self, experts: nn.ModuleList, gate: nn.Linear) -> None:
        super().__init__()
        self.experts, self.gate = experts, gate

    def forward(self, vectors: Tensor, shared: nn.ModuleList) -> Tensor:
        """(n, E) -> (n, expert_width)."""
        outputs = torch.stack([expert(vectors) for expert in (*shared, *self.experts)], dim=1)  # n,experts,expert_width
        share = self.gate(vectors).softmax(-1).to(outputs.dtype)  # n,experts
        return (share.unsqueeze(1) @ outputs).squeeze(1)
