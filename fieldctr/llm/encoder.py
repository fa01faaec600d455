"""A language model as a function from texts to vectors.

Any transformers model, decoder or encoder: width, special tokens and layout are read from it. Importing transformers
and peft takes ten seconds, so it happens inside the functions that need them.
"""

import importlib.util
import os
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fieldctr import processor
from fieldctr.config import EncoderConfig
from fieldctr.errors import UserError
from fieldctr.llm.tokens import by_length
from fieldctr.llm.weights import loadable_folder

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "4bit": torch.bfloat16}


class Encoder:
    """A model, its tokenizer, the head that predicts tokens where it is needed, and a count of what was asked."""

    def __init__(
        self, model: nn.Module, tokenizer: Any, *, pooling: str, max_tokens: int, head: nn.Module | None = None
    ) -> None:
        self.model, self.tokenizer, self.pooling, self.head = model, tokenizer, pooling, head
        self.max_tokens = min(max_tokens, tokenizer.model_max_length)
        self.pad = tokenizer.pad_token_id or 0
        self.calls = self.tokens = 0

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def tokenize(self, texts: Sequence[str], *, spare: int = 0) -> list[list[int]]:
        """Token ids of each text with the model's special tokens; UserError for one that it cannot hold.

        `spare` tokens are to fit behind each.
        """
        found: list[list[int]] = self.tokenizer(list(texts), verbose=False)["input_ids"] if texts else []
        longest = max(map(len, found), default=0) + spare
        if longest > self.max_tokens:
            raise UserError(
                f"a prompt has {longest} tokens, encoder.max_tokens and the model allow {self.max_tokens}: "
                "set encoder.template=short, or raise encoder.max_tokens if the model takes more"
            )
        return found

    def answers(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text as what the model is to write: no special tokens but the end."""
        found = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        end = self.tokenizer.eos_token_id
        return [[*ids] if end is None else [*ids, end] for ids in found]

    def embed(self, tokens: Sequence[list[int]]) -> Tensor:
        """One forward pass: n texts -> (n, E) fp32, not normalised."""
        hidden, size = self.hidden(tokens)
        if self.pooling == "mean":
            mask = torch.arange(hidden.shape[1], device=size.device) < size[:, None]  # n,T
            return (hidden * mask[:, :, None]).sum(1) / size[:, None]
        # Padding is on the right, where a causal model's last token does not see it.
        place = size - 1 if self.pooling == "last" else torch.zeros_like(size)
        return hidden[torch.arange(len(place), device=size.device), place]

    def nll(self, tokens: Sequence[list[int]], answers: Sequence[list[int]]) -> Tensor:
        """One forward pass: the sum over n texts of -log P(answer | text), ().

        The head reads only where it predicts an answer's token: it costs more than a small model's layers.
        """
        assert self.head is not None, "the generative loss loads a head"
        both = list(zip(tokens, answers, strict=True))
        hidden, size = self.hidden([ids + answer for ids, answer in both])
        row = [n for n, (_, answer) in enumerate(both) for _ in answer]
        place = [len(ids) - 1 + i for ids, answer in both for i in range(len(answer))]
        wanted = torch.tensor([token for _, answer in both for token in answer], device=size.device)
        weight = next(self.head.parameters())
        scores = self.head(hidden[row, place].to(weight.dtype)).float()  # answers' tokens, vocabulary
        return functional.cross_entropy(scores, wanted, reduction="sum")

    def hidden(self, tokens: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        """One forward pass: the last layer of n texts, padded on the right (n, T, E) fp32, and their lengths (n,)."""
        size = torch.tensor([len(ids) for ids in tokens])
        padded = torch.full((len(tokens), int(size.max())), self.pad)  # n,T
        for row, ids in zip(padded, tokens, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        mask = torch.arange(padded.shape[1]) < size[:, None]  # n,T
        self.calls, self.tokens = self.calls + 1, self.tokens + int(size.sum())
        padded, mask, size = (part.to(self.device) for part in (padded, mask, size))
        return self.model(input_ids=padded, attention_mask=mask.long()).last_hidden_state.float(), size

    def embed_all(self, tokens: Sequence[list[int]], *, micro_batch: int) -> Tensor:
        """Without gradient or dropout, `micro_batch` texts at a time: n texts -> (n, E) on the CPU."""
        chunks = list(by_length(map(len, tokens), micro_batch))
        self.model.eval()
        with torch.no_grad():
            found = torch.cat([self.embed([tokens[i] for i in chunk]).cpu() for chunk in chunks])
        place = torch.tensor([i for chunk in chunks for i in chunk])
        return torch.empty_like(found).index_copy(0, place, found)


def load_encoder(config: EncoderConfig, device: torch.device, *, converted: Path) -> Encoder:
    """The encoder of a node of kind pretrained or tiny_llama, with LoRA weights where it is to be tuned.

    A GGUF file becomes a folder below `converted` first, once.
    """
    config = with_dtype(config, device)
    generative = config.tuning.loss == "generative" and config.tuning.epochs > 0
    with _seeded(config):
        whole, tokenizer = _loaded(config, device, generative, converted)
        if generative and not _looks_back(whole):
            raise _no_decoder(config.model)
        head = whole.get_output_embeddings() if generative else None
        model = whole.base_model  # without a head
        if config.tuning.epochs:
            model = with_lora(model, config)
    if config.dtype != "4bit":  # those are on their device, and refuse to move
        whole.to(device)  # LoRA's weights are in it
    return Encoder(model.eval(), tokenizer, pooling=config.pooling, max_tokens=config.max_tokens, head=head)


def load_decoder(config: EncoderConfig, device: torch.device, *, converted: Path) -> tuple[Any, Any]:
    """A model that writes, and its tokenizer; UserError for one that cannot predict the next token."""
    config = with_dtype(config, device)
    refused = UserError(
        f"knowledge.writer.model={config.model} is no decoder, which predicts the next token. Take one, such as "
        "encoder@knowledge.writer=smollm2_135m"
    )
    with _seeded(config):
        try:
            whole, tokenizer = _loaded(config, device, True, converted)
        except _NoHeadError as error:
            raise refused from error
        if not _looks_back(whole):
            raise refused
    if config.dtype != "4bit":
        whole.to(device)
    return whole.eval(), tokenizer


@contextmanager
def _seeded(config: EncoderConfig) -> Generator[None]:
    """What is drawn inside depends on the encoder's seed, and disturbs no other numbers."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else it warns after every fork
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.filterwarnings("ignore", category=FutureWarning)  # peft uses what transformers will remove
        torch.default_generator.manual_seed(config.seed)
        yield


def _loaded(config: EncoderConfig, device: torch.device, generative: bool, converted: Path) -> tuple[Any, Any]:
    """The model, whose weights stay, and its tokenizer."""
    _check_dtype(config, device)
    if config.kind == "tiny_llama":
        whole, tokenizer = tiny_llama()
        if config.weights == "random":  # those it has are random too: it gets others
            whole, tokenizer = tiny_llama()
    else:
        whole, tokenizer = _pretrained(config, device, generative, converted)
    return whole.requires_grad_(False), tokenizer


def with_dtype(config: EncoderConfig, device: torch.device) -> EncoderConfig:
    """With the dtype in place of encoder.dtype=auto: bf16 where this device has it, else fp32."""
    if config.dtype != "auto":
        return config
    return replace(config, dtype="bf16" if processor.native_bf16_on(device) else "fp32")


def arithmetic(dtype: str, device: torch.device) -> list[str]:
    """What decides the bits of a product besides its factors: the library or precision of fp32, and emulation."""
    bf16 = [] if dtype == "fp32" or device.type != "cpu" else ["native" if processor.native_bf16() else "emulated"]
    return [torch.get_float32_matmul_precision(), *bf16]


def _check_dtype(config: EncoderConfig, device: torch.device) -> None:
    dtype = config.dtype
    if dtype == "4bit" and config.weights == "random":
        raise UserError("encoder.weights=random has no 4 bits: those are made of saved weights. Use encoder.dtype=bf16")
    if dtype == "bf16" and device.type == "cpu" and not processor.native_bf16():
        warnings.warn(
            "encoder.dtype=bf16: this processor emulates bf16, 3 to 9 times slower than fp32. encoder.dtype=fp32 gives "
            "vectors of the same quality, not the same bits, and encoder.dtype=auto takes it here",
            stacklevel=3,
        )
    if dtype == "4bit" and (device.type != "cuda" or importlib.util.find_spec("bitsandbytes") is None):
        raise UserError(
            f"encoder.dtype=4bit needs a CUDA device and the package bitsandbytes, got {device.type}: "
            "pip install bitsandbytes there, or use encoder.dtype=bf16"
        )


@torch.no_grad()
def _looks_back(whole: Any) -> bool:
    """Whether no token sees those behind it, as in a model that predicts the next one."""
    first, second = (
        whole.base_model(input_ids=torch.tensor([ids], device=whole.device)).last_hidden_state[0, 0]
        for ids in ([5, 6], [5, 7])
    )
    return torch.equal(first, second)


class _NoHeadError(UserError):
    """The kind of model has no class with a head that predicts tokens."""


def _no_decoder(name: str) -> UserError:
    return _NoHeadError(
        f"encoder.tuning.loss=generative needs a decoder, which predicts the next token, and encoder.model={name} is "
        "none. Use encoder.tuning.loss=contrastive, or a decoder such as encoder=smollm2_135m"
    )


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


def _pretrained(config: EncoderConfig, device: torch.device, generative: bool, converted: Path) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    from transformers.utils import logging

    logging.set_verbosity_error()  # it reports weights that we do not need
    logging.disable_progress_bar()
    folder = loadable_folder(config.model, config.origin, converted)
    local = {"local_files_only": True, "trust_remote_code": False}  # a folder may bring Python code of its own
    try:
        settings = AutoConfig.from_pretrained(folder, **local)
    except ValueError as error:
        raise UserError(f"encoder.model={config.model}: {str(error).splitlines()[0]}") from error
    for name, value in settings.to_dict().items():
        if "dropout" in name and isinstance(value, float):
            setattr(settings, name, 0.0)  # BERT's 0.1 takes 25 points of the accuracy of SSFT
    kind, tokenizer = (AutoModelForCausalLM if generative else AutoModel), AutoTokenizer
    chosen = {"dtype": DTYPES[config.dtype], "attn_implementation": config.attention}
    quantized = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    try:
        if config.weights == "random":
            return kind.from_config(settings, **chosen), tokenizer.from_pretrained(folder, **local)
        model = kind.from_pretrained(
            folder,
            config=settings,
            **local,
            **chosen,
            **({"quantization_config": quantized, "device_map": {"": device}} if config.dtype == "4bit" else {}),
        )
    except ValueError as error:  # what transformers says of a kind of model that has no such class
        raise _no_decoder(config.model) from error
    return model, tokenizer.from_pretrained(folder, **local)


def tiny_llama() -> tuple[Any, Any]:
    """A random decoder of two layers with a tokenizer of single bytes: any text passes, nothing is downloaded."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

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
    return LlamaForCausalLM(config), tokenizer
