"""Texts for SSFT: which field does this value belong to?

Source: LLaCTR (arXiv:2505.14057), self-supervised field-feature fine-tuning, and its released code.
Differs: a value that several fields have keeps a prompt for each (`shared_values=last` is the released code's); the
short template leaves out the list of all fields, which is 95 % of the tokens.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fieldctr.config import EncoderConfig
from fieldctr.data.values import FieldValues

HELDOUT_SHARE, HELDOUT_MOST = 0.2, 100  # of a field's values: they measure the tuning
LONGEST_VALUE = 200  # characters; a description of thousands would push the question out of the model's window

LONG = """You are given a feature of a recommender system and the names of all its fields.

### Instruction:
Name the field that the feature belongs to. Choose one of the candidate set.

### Input:
The feature is: {value}.
The candidate set is: {fields}.

### Response:
"""


class Prompt(NamedTuple):
    """A text and the field that it asks for."""

    text: str
    field: int


class Prompts(NamedTuple):
    """Texts that SSFT reads, and the fields that they are about."""

    fields: list[str]  # F names
    train: list[Prompt]
    heldout: list[Prompt]  # other values than those of train


def field_prompts(values: Sequence[FieldValues], names: Sequence[str], config: EncoderConfig) -> Prompts:
    """Prompts for up to `values_per_field` values of each field, drawn without replacement; the seed decides which."""
    train: list[tuple[str, int]] = []
    heldout: list[tuple[str, int]] = []
    for field, known in enumerate(values):
        order = _drawn(known, config.sampling, np.random.default_rng([config.seed, field]))
        kept = len(order) - min(HELDOUT_MOST, int(HELDOUT_SHARE * len(order)))
        heldout += [(known.texts[i], field) for i in order[kept:]]
        train += [(known.texts[i], field) for i in order[:kept][: config.values_per_field]]
    if config.shared_values == "last":
        train = list(dict(train).items())
    asked = ([_prompt(*pair, config.template, names) for pair in pairs] for pairs in (train, heldout))
    return Prompts(list(names), *asked)


def opaque(num_fields: int) -> list[str]:
    """Names without a meaning: f1, f2, ..."""
    return [f"f{i + 1}" for i in range(num_fields)]


def _drawn(known: FieldValues, sampling: str, generator: np.random.Generator) -> np.ndarray:
    """All positions in the order of the draw."""
    share = known.counts / known.counts.sum() if sampling == "weighted" and known.texts else None
    return generator.choice(len(known.texts), len(known.texts), replace=False, p=share) if known.texts else np.arange(0)


def _prompt(value: str, field: int, template: str, names: Sequence[str]) -> Prompt:
    value = value[:LONGEST_VALUE]
    text = LONG.format(value=value, fields=", ".join(names)) if template == "long" else f"The feature is: {value}."
    return Prompt(text, field)
