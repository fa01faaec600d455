"""What a language model of any size would take for some texts: tokens, operations and memory, from its shape alone.

A pass forward: 2 operations a weight of the layers and in each layer 4 a number of all heads for each token that a
token looks at, as many as its text has. A pass backward to LoRA's weights costs the same again: no other weight has a
gradient.
Memory: the weights, and for a micro-batch what a layer keeps for the pass backward, 34 E + 5 heads times the tokens of
a text, bytes a token in 16 bits (Korthikanti et al., arXiv:2205.05198, equation 1), of all layers in training, else of
one; for a model that writes, the keys and values of all layers too.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fieldctr.config import EncoderConfig
from fieldctr.errors import UserError
from fieldctr.llm.encoder import tiny_llama
from fieldctr.llm.weights import local_place

BYTES = {"fp32": 4.0, "bf16": 2.0, "4bit": 0.5625}  # a weight of a layer; 4 bits have a scale of 8 for each 16
LETTERS_A_TOKEN = 4  # of English, where the model's tokenizer is not here


class Shape(NamedTuple):
    """What decides the cost of a model without a head."""

    layer_weights: int
    token_weights: int  # looked up, not multiplied
    layers: int
    width: int  # E
    heads: int
    attended: int  # numbers of all heads together: E in most models
    kept: int  # numbers that a token leaves in a layer for those behind it: keys and values


class Work(NamedTuple):
    """Texts that a model is to read, all of about the same length."""

    texts: int
    tokens_each: float
    passes: float = 1.0  # a pass forward each; 2 with one backward
    written_each: int = 0  # tokens that the model writes behind each


class Demand(NamedTuple):
    """What that takes."""

    tokens: float
    flops: float
    weights_gb: float
    batch_gb: float  # besides the weights


def demand(shape: Shape, work: Work, *, dtype: str, micro_batch: int) -> Demand:
    """The cost of the work on one device."""
    length = work.tokens_each + work.written_each
    each = 2 * shape.layer_weights + 4 * shape.attended * shape.layers * length
    head = 2 * shape.token_weights * work.written_each  # scores of all tokens, where one is chosen
    size = BYTES[dtype]
    weights = shape.layer_weights * size + shape.token_weights * max(size, 2.0) * (1 + bool(work.written_each))
    scale = max(size, 2.0) / 2  # activations of a model in 4 bits are in 16
    layer = micro_batch * length * (34 * shape.width + 5 * shape.heads * length) * scale
    cache = micro_batch * length * shape.kept * shape.layers * 2 * scale if work.written_each else 0.0
    kept = shape.layers if work.passes > 1 else 1
    return Demand(
        work.texts * length,
        work.texts * (work.passes * each * length + head),
        weights / 1e9,
        (layer * kept + cache) / 1e9,
    )


def shape_of(settings: Any) -> Shape:
    """From a transformers configuration; no weight is made."""
    from transformers import AutoModel

    with torch.device("meta"):
        model = AutoModel.from_config(settings)
    tokens = model.get_input_embeddings().weight.numel()
    heads = settings.num_attention_heads
    head_width = getattr(settings, "head_dim", None) or settings.hidden_size // heads
    return Shape(
        sum(weight.numel() for weight in model.parameters()) - tokens,
        tokens,
        settings.num_hidden_layers,
        settings.hidden_size,
        heads,
        heads * head_width,
        2 * head_width * (getattr(settings, "num_key_value_heads", None) or heads),
    )


def settings_of(config: EncoderConfig, published: Path) -> Any:
    """The transformers configuration of an encoder: beside its weights where they are here, else in `published`.

    Nothing is fetched; UserError where neither is there.
    """
    from transformers import AutoConfig

    if config.kind == "tiny_llama":
        return tiny_llama()[0].config
    place = local_place(config.model)
    if place is not None:
        where: Mapping[str, Any] = {"gguf_file": place.name} if place.is_file() else {}
        folder = place.parent if place.is_file() else place
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **where)
    if not published.exists():
        raise UserError(f"encoder.model={config.model} is not here, nor a description of it. Get it: {config.origin}")
    return AutoConfig.for_model(**json.loads(published.read_text(encoding="utf-8")))


def tokenizer_of(config: EncoderConfig) -> Any | None:
    """The encoder's tokenizer; None where it is not here."""
    from transformers import AutoTokenizer

    if config.kind == "tiny_llama":
        return tiny_llama()[1]
    place = local_place(config.model)
    if place is None:
        return None
    where = {"gguf_file": place.name} if place.is_file() else {}
    folder = place.parent if place.is_file() else place
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **where)


def mean_tokens(tokenizer: Any | None, texts: list[str], most: int) -> float:
    """Of some texts, each as far as it fits into the window; counted, or by their letters."""
    if not texts:
        return 0.0
    if tokenizer is None:
        counts = [len(text) / LETTERS_A_TOKEN for text in texts]
    else:
        counts = [float(len(ids)) for ids in tokenizer(texts, verbose=False)["input_ids"]]
    return sum(min(count, most) for count in counts) / len(counts)
