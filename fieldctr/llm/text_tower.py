"""A language model that is trained on the texts of samples: CTRL's text tower (arXiv:2306.02841, section 4.2).

Source: Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (arXiv:2101.06983): a
batch passes in small parts, which the backward pass makes again, so that no more than one's activations are kept.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fieldctr.config import EncoderConfig
from fieldctr.errors import UserError
from fieldctr.inputs import Inputs
from fieldctr.llm.encoder import Encoder, load_encoder
from fieldctr.llm.placebo import TextSource, derangement
from fieldctr.llm.text_vectors import Texts
from fieldctr.llm.tokens import Tokens, by_length, tokens_of
from fieldctr.nn.text_lookup import TextLookup, TextVectors


class TextTower(nn.Module):
    """The vectors of samples' texts, with gradients for the language model's LoRA weights."""

    def __init__(self, encoder: Encoder, tokens: Tokens, lookup: TextLookup, *, micro_batch: int) -> None:
        super().__init__()
        self.encoder, self.tokens, self.micro_batch = encoder, tokens, micro_batch
        self.language_model, self.lookup = encoder.model, lookup

    def forward(self, inputs: Inputs) -> Tensor:
        """One batch -> (B, E)."""
        tokens = self.tokens.of(self.lookup.find(inputs)[0].tolist())
        chunks = list(by_length(map(len, tokens), self.micro_batch))
        parts = [checkpoint(self.encoder.embed, [tokens[i] for i in chunk], use_reentrant=False) for chunk in chunks]
        place = torch.tensor([i for chunk in chunks for i in chunk])
        return torch.cat(parts)[place.argsort().to(parts[0].device)]


def text_tower(
    config: EncoderConfig,
    found: Texts,
    source: TextSource,
    *,
    num_columns: int,
    device: torch.device,
    models: Path,
    seed: int,
) -> TextTower:
    """The encoder with LoRA weights on these texts, or on those that the placebo puts in their place."""
    if config.kind == "random" or source == "random":
        raise UserError(
            "enhancer.text_tower=trained trains a language model, and random vectors come from none. Use "
            "enhancer.text_tower=frozen, or an encoder such as encoder=untuned with another enhancer.source"
        )
    tuning = replace(config.tuning, epochs=1, loss="contrastive")  # which is what asks for LoRA weights
    encoder = load_encoder(replace(config, tuning=tuning), device, converted=models)
    different, place = np.unique(np.array(found.texts, object), return_inverse=True)
    tokens = tokens_of(encoder.tokenizer, different.tolist(), encoder.max_tokens)
    rows = torch.from_numpy(place)
    if source == "permuted":
        rows = derangement(len(different), seed)[rows]
    elif source == "constant":
        rows = torch.zeros_like(rows)
    nothing = torch.empty(len(different), 0)
    read = TextVectors.of("row", found.columns, torch.from_numpy(found.keys), rows, nothing)
    return TextTower(encoder, tokens, TextLookup(read, num_columns), micro_batch=config.tuning.micro_batch)
