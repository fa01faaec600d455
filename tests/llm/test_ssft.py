"""Pooling, both losses against naive loops, the learning rate, and that tuning teaches fields."""

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.testing import assert_close

from fieldctr import processor
from fieldctr.config import EncoderConfig, TuningConfig
from fieldctr.data.values import FieldValues
from fieldctr.errors import UserError
from fieldctr.llm.encoder import Encoder, load_encoder, tiny_llama, with_dtype
from fieldctr.llm.prompts import field_prompts
from fieldctr.llm.ssft import Stepper, accuracy, closeness, contrast, generation, tune
from fieldctr.training.progress import Progress

Config = Callable[..., EncoderConfig]
Loaded = Callable[[EncoderConfig], Encoder]


def watch() -> Progress:
    return Progress(total_steps=1, step=0, batch_size=1)


@pytest.fixture
def encoder(config: Config, loaded: Loaded) -> Encoder:
    return loaded(config(lora_dropout=0.0))


@pytest.mark.parametrize("pooling", ["mean", "last", "cls"])
def test_a_batch_is_its_texts_one_by_one(pooling: str, config: Config, loaded: Loaded) -> None:
    encoder = loaded(config(pooling=pooling))
    tokens = encoder.tokenize(["a", "longer text", "ü"])
    with torch.no_grad():
        together = encoder.embed(tokens)
        for ids, found in zip(tokens, together, strict=True):
            hidden = encoder.model(input_ids=torch.tensor([ids])).last_hidden_state[0]
            expected = {"mean": hidden.mean(0), "last": hidden[-1], "cls": hidden[0]}[pooling]
            assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert_close(encoder.embed_all(tokens, micro_batch=2), together, atol=1e-5, rtol=1e-4)
    assert encoder.calls == 3
    assert encoder.tokens == 2 * sum(map(len, tokens))


def test_a_prompt_that_does_not_fit_is_refused(config: Config, loaded: Loaded) -> None:
    with pytest.raises(UserError, match=r"encoder\.max_tokens"):
        loaded(config(max_tokens=8)).tokenize(["far too long a text"])


@pytest.mark.parametrize("loss", ["contrastive", "generative"])
def test_only_lora_weights_move(
    loss: str, values: list[FieldValues], names: list[str], config: Config, loaded: Loaded
) -> None:
    chosen = config(loss=loss, batch_size=8)
    encoder = loaded(chosen)
    before = {name: weight.clone() for name, weight in encoder.model.named_parameters()}
    found = tune(encoder, field_prompts(values, names, chosen), chosen.tuning, seed=1, watch=watch())
    moved = [name for name, weight in encoder.model.named_parameters() if not torch.equal(weight, before[name])]
    assert len(moved) == 8  # two matrices beside each of two layers' q_proj and v_proj
    assert all("lora_" in name for name in moved)
    assert not torch.equal(found.vectors[0], found.vectors[1])


def test_a_layer_that_the_model_lacks_is_named(config: Config, loaded: Loaded) -> None:
    with pytest.raises(UserError, match="q_proj"):
        loaded(config(lora_targets=["query"]))


def test_the_gradient_of_a_step_is_the_naive_loops(
    encoder: Encoder, values: list[FieldValues], names: list[str], config: Config
) -> None:
    """Naive: one prompt at a time, each with all field names encoded anew."""
    settings = config(micro_batch=4).tuning
    prompts = field_prompts(values, names, config()).train[:10]
    scatter(encoder.model)
    labels = torch.tensor([prompt.field for prompt in prompts])
    fields, tokens = encoder.tokenize(names), encoder.tokenize([prompt.text for prompt in prompts])
    found = contrast(encoder, fields, settings, tokens, labels)
    fast = taken(encoder.model)
    total = 0.0
    for ids, label in zip(tokens, labels.tolist(), strict=True):
        query = encoder.embed([ids])[0]
        cosines = torch.stack([functional.cosine_similarity(query, field, dim=0) for field in encoder.embed(fields)])
        powers = (cosines / 0.02).double()
        loss = (powers.logsumexp(0) - powers[label]) / len(tokens)
        loss.backward()
        total += loss.item()
    assert math.isclose(found, total, rel_tol=1e-5)
    for one, other in zip(fast, taken(encoder.model), strict=True):
        assert float((one - other).norm() / other.norm()) < 1e-5


def test_the_generative_loss_is_its_formula_token_by_token(
    values: list[FieldValues], names: list[str], config: Config, loaded: Loaded
) -> None:
    """Naive: one prompt and one token of its answer at a time, the head on the last position alone."""
    encoder = loaded(config(lora_dropout=0.0, loss="generative"))
    settings = config(micro_batch=3).tuning
    prompts = field_prompts(values, names, config()).train[::5][:7]
    scatter(encoder.model)
    labels = torch.tensor([prompt.field for prompt in prompts])
    tokens, answers = encoder.tokenize([prompt.text for prompt in prompts]), encoder.answers(names)
    found = generation(encoder, answers, settings, tokens, labels)
    fast = taken(encoder.model)
    total = 0.0
    for ids, field in zip(tokens, labels.tolist(), strict=True):
        written = list(ids)
        for token in [
            *encoder.tokenizer.encode(names[field], add_special_tokens=False),
            encoder.tokenizer.eos_token_id,
        ]:
            last = encoder.model(input_ids=torch.tensor([written])).last_hidden_state[0, -1]
            scores = encoder.head.weight @ last
            loss = (scores.exp().sum().log() - scores[token]) / len(tokens)
            loss.backward()
            total += loss.item()
            written.append(token)
    assert math.isclose(found, total, rel_tol=1e-5)
    for one, other in zip(fast, taken(encoder.model), strict=True):
        assert float((one - other).norm() / other.norm()) < 1e-5
    assert all(weight.grad is None for weight in encoder.head.parameters())


def test_an_encoder_cannot_generate(tmp_path: Path, config: Config, loaded: Loaded) -> None:
    """A BERT of random weights: its tokens see those behind them."""
    transformers = pytest.importorskip("transformers")
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    transformers.BertModel(transformers.BertConfig(vocab_size=300, **shape)).save_pretrained(tmp_path)
    tiny_llama()[1].save_pretrained(tmp_path)
    bert = config(kind="pretrained", model=str(tmp_path), lora_targets=["query"])
    assert loaded(bert).head is None
    with pytest.raises(UserError, match=r"loss=generative needs a decoder"):
        loaded(replace(bert, tuning=replace(bert.tuning, loss="generative")))


def test_four_bits_need_a_gpu(config: Config, loaded: Loaded) -> None:
    with pytest.raises(UserError, match=r"encoder\.dtype=4bit needs a CUDA device"):
        loaded(config(dtype="4bit"))


def test_emulated_bf16_is_said(config: Config, loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "native_bf16", lambda: False)
    with pytest.warns(UserWarning, match=r"encoder\.dtype=fp32"):
        loaded(config(dtype="bf16"))


@pytest.mark.parametrize("dtype", ["auto", "fp32"])
def test_nobody_is_warned_of_what_was_not_asked_for(
    dtype: str, native_bf16: bool, config: Config, loaded: Loaded
) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        loaded(config(dtype=dtype))
    assert said == []


def test_auto_takes_what_the_processor_computes_itself(native_bf16: bool, config: Config, tmp_path: Path) -> None:
    """A BERT of random weights: what is loaded, not what is written, decides the speed."""
    transformers = pytest.importorskip("transformers")
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    transformers.BertModel(transformers.BertConfig(vocab_size=300, **shape)).save_pretrained(tmp_path)
    tiny_llama()[1].save_pretrained(tmp_path)
    bert = config(kind="pretrained", model=str(tmp_path), lora_targets=["query"], dtype="auto")
    loaded = load_encoder(bert, torch.device("cpu"), converted=tmp_path)
    base = {weight.dtype for name, weight in loaded.model.named_parameters() if "lora_" not in name}
    assert base == {torch.bfloat16 if native_bf16 else torch.float32}


@pytest.mark.parametrize("native", [True, False])
def test_a_gpu_is_asked_for_itself(native: bool, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "native_bf16", lambda: not native)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    assert with_dtype(config(dtype="auto"), torch.device("cuda")).dtype == ("bf16" if native else "fp32")


def scatter(model: nn.Module) -> None:
    """LoRA's second matrix starts at zero: the first would have no gradient."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))


def taken(model: nn.Module) -> list[Tensor]:
    gradients = []
    for weight in model.parameters():
        if weight.grad is not None:
            gradients.append(weight.grad)
            weight.grad = None
    assert gradients
    return gradients


def test_the_rate_rises_then_falls_to_zero(encoder: Encoder, config: Config) -> None:
    tuning: TuningConfig = config(epochs=2, batch_size=10, warmup_steps=3, lr=1.0).tuning
    stepper = Stepper(encoder, tuning, lambda tokens, labels: 0.0, num_prompts=45, watch=watch())
    rates = []
    while stepper.step < stepper.steps:
        rates.append(stepper.rate())
        stepper.step += 1
    assert len(rates) == 10
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert 0 < rates[-1] < 0.2


def test_tuning_teaches_fields_and_one_seed_gives_one_result(
    values: list[FieldValues], names: list[str], config: Config, loaded: Loaded
) -> None:
    chosen = config(epochs=8, batch_size=8, warmup_steps=2, lora_dropout=0.05)
    prompts = field_prompts(values, names, chosen)
    state = torch.get_rng_state()
    first, again = (tune(loaded(chosen), prompts, chosen.tuning, seed=1, watch=watch()) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.vectors, again.vectors)
    assert first.vectors.shape == (9, 3, 32)
    assert first.history[-1]["loss"] < 0.7 * first.history[1]["loss"]
    assert first.history[-1]["accuracy"] > 0.6 > first.history[0]["accuracy"]


def test_generating_names_teaches_them(
    values: list[FieldValues], names: list[str], config: Config, loaded: Loaded
) -> None:
    chosen = config(epochs=4, batch_size=8, warmup_steps=2, loss="generative")
    prompts = field_prompts(values, names, chosen)
    found = tune(loaded(chosen), prompts, chosen.tuning, seed=1, watch=watch())
    assert found.history[-1]["loss"] < 0.99 * found.history[1]["loss"]  # a random head, frozen, learns little
    assert set(found.history[-1]) == {"epoch", "loss", "accuracy", "field_accuracy", "mean_cosine", "max_cosine"}


def test_nothing_to_ask_is_said(names: list[str], config: Config, loaded: Loaded) -> None:
    chosen = config()
    prompts = field_prompts([FieldValues([], np.zeros(0))] * 3, names, chosen)
    with pytest.raises(UserError, match="encoder=untuned"):
        tune(loaded(chosen), prompts, chosen.tuning, seed=1, watch=watch())


def test_accuracy_counts_nearest_fields(encoder: Encoder) -> None:
    tokens = encoder.tokenize(["one", "two", "three"])
    vectors = encoder.embed_all(tokens, micro_batch=3)
    found = accuracy(encoder, tokens, torch.tensor([0, 1, 1]), vectors, micro_batch=2)
    assert math.isclose(found["accuracy"], 2 / 3, rel_tol=1e-6)
    assert math.isclose(found["field_accuracy"], 0.75, rel_tol=1e-6)


def test_closeness() -> None:
    found = closeness(torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]]))
    assert math.isclose(found["mean_cosine"], 1 / 3, rel_tol=1e-6)
    assert found["max_cosine"] == 1.0
