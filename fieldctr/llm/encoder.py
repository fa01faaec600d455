"""A language model as a function from texts to vectors.

Any transformers model, decoder or encoder: width, special tokens and layout are read from it. Importing transformers
and peft takes ten seconds, so it happens inside the functions that need them.
"""

import os
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fieldctr.config import EncoderConfig
from fieldctr.errors import UserError
from fieldctr.llm.weights import model_folder

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Encoder:
    """A model, its tokenizer, and a count of what they were asked."""

    def __init__(self, model: nn.Module, tokenizer: Any, *, pooling: str, max_tokens: int) -> None:
        self.model, self.tokenizer, self.pooling = model, tokenizer, pooling
        self.max_tokens = min(max_tokens, tokenizer.model_max_length)
        self.pad = tokenizer.pad_token_id or 0
        self.calls = self.tokens = 0

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text with the model's special tokens; UserError for a text that the model cannot hold."""
        found: list[list[int]] = self.tokenizer(list(texts), verbose=False)["input_ids"] if texts else []
        longest = max(map(len, found), default=0)
        if longest > self.max_tokens:
            raise UserError(
                f"a prompt has {longest} tokens, encoder.max_tokens and the model allow {self.max_tokens}: "
                "set encoder.template=short, or raise encoder.max_tokens if the model takes more"
            )
        return found

    def embed(self, tokens: Sequence[list[int]]) -> Tensor:
        """One forward pass: n texts -> (n, E) fp32, not normalised."""
        device = next(self.model.parameters()).device
        size = torch.tensor([len(ids) for ids in tokens])
        padded = torch.full((len(tokens), int(size.max())), self.pad)  # n,T
        for row, ids in zip(padded, tokens, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        mask = torch.arange(padded.shape[1]) < size[:, None]  # n,T
        self.calls, self.tokens = self.calls + 1, self.tokens + int(size.sum())
        padded, mask, size = padded.to(device), mask.to(device), size.to(device)
        hidden = self.model(input_ids=padded, attention_mask=mask.long()).last_hidden_state.float()  # n,T,E
        if self.pooling == "mean":
            return (hidden * mask[:, :, None]).sum(1) / size[:, None]
        # Padding is on the right, where a causal model's last token does not see it.
        place = size - 1 if self.pooling == "last" else torch.zeros_like(size)
        return hidden[torch.arange(len(place), device=device), place]

    def embed_all(self, tokens: Sequence[list[int]], *, micro_batch: int) -> Tensor:
        """Without gradient or dropout, `micro_batch` texts at a time: n texts -> (n, E) on the CPU."""
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        self.model.eval()
        with torch.no_grad():
            chunks = [order[at : at + micro_batch] for at in range(0, len(order), micro_batch)]
            found = torch.cat([self.embed([tokens[i] for i in chunk]).cpu() for chunk in chunks])
        return torch.empty_like(found).index_copy(0, torch.tensor(order), found)


def load_encoder(config: EncoderConfig, device: torch.device) -> Encoder:
    """The encoder of a node of kind pretrained or tiny_llama, with LoRA weights where it is to be tuned."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else it warns after every fork
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.filterwarnings("ignore", category=FutureWarning)  # peft uses what transformers will remove
        torch.default_generator.manual_seed(config.seed)
        model, tokenizer = tiny_llama() if config.kind == "tiny_llama" else _pretrained(config)
        model.requires_grad_(False)
        if config.tuning.epochs:
            model = with_lora(model, config)
    return Encoder(model.to(device).eval(), tokenizer, pooling=config.pooling, max_tokens=config.max_tokens)


def with_lora(model: nn.Module, config: EncoderConfig) -> nn.Module:
    """LoRA beside the layers that the configuration names; nothing else is trained."""
    import peft

    tuning = config.tuning
    settings = peft.LoraConfig(
        r=tuning.lora_rank,
        lora_alpha=tuning.lora_alpha,
        lora_dropout=tuning.lora_dropout,
        target_modules=tuning.lora_targets,
        bias="none",
        task_type="FEATURE_EXTRACTION",
    )
    layers = {name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    if not layers.issuperset(tuning.lora_targets):
        raise UserError(
            f"encoder.tuning.lora_targets={tuning.lora_targets}: this model has the layers {', '.join(sorted(layers))}"
        )
    return peft.get_peft_model(model, settings)


def _pretrained(config: EncoderConfig) -> tuple[nn.Module, Any]:
    from transformers import AutoConfig, AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()  # it reports weights that we do not need
    logging.disable_progress_bar()
    folder = model_folder(config.model)
    settings = AutoConfig.from_pretrained(folder, local_files_only=True)
    for name, value in settings.to_dict().items():
        if "dropout" in name and isinstance(value, float):
            setattr(settings, name, 0.0)  # BERT's 0.1 takes 25 points of the accuracy of SSFT
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(
        folder,
        config=settings,
        local_files_only=True,
        dtype=DTYPES[config.dtype],
        attn_implementation=config.attention,
    )
    return model, tokenizer


def tiny_llama() -> tuple[nn.Module, Any]:
    """A random decoder of two layers with a tokenizer of single bytes: any text passes, nothing is downloaded."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

    letters = ["<pad>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    bytewise = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    bytewise.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bytewise, pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_max_length=2048
    )
    config = LlamaConfig(
        vocab_size=len(letters),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        use_cache=False,
        pad_token_id=0,
    )
    return LlamaModel(config), tokenizer
