"""Pooling, the fast step against the naive loop, the learning rate, and that tuning teaches fields."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.testing import assert_close

from fieldctr.config import EncoderConfig, TuningConfig
from fieldctr.data.values import FieldValues
from fieldctr.errors import UserError
from fieldctr.llm.encoder import Encoder, load_encoder
from fieldctr.llm.prompts import field_prompts
from fieldctr.llm.ssft import Stepper, accuracy, closeness, contrast, tune

CPU = torch.device("cpu")
Config = Callable[..., EncoderConfig]


@pytest.fixture
def encoder(config: Config) -> Encoder:
    return load_encoder(config(lora_dropout=0.0), CPU)


@pytest.mark.parametrize("pooling", ["mean", "last", "cls"])
def test_a_batch_is_its_texts_one_by_one(pooling: str, config: Config) -> None:
    encoder = load_encoder(config(pooling=pooling), CPU)
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


def test_a_prompt_that_does_not_fit_is_refused(config: Config) -> None:
    with pytest.raises(UserError, match=r"encoder\.max_tokens"):
        load_encoder(config(max_tokens=8), CPU).tokenize(["far too long a text"])


def test_only_lora_weights_move(encoder: Encoder) -> None:
    moving = [name for name, weight in encoder.model.named_parameters() if weight.requires_grad]
    assert moving
    assert all("lora_" in name for name in moving)


def test_a_layer_that_the_model_lacks_is_named(config: Config) -> None:
    with pytest.raises(UserError, match="q_proj"):
        load_encoder(config(lora_targets=["query"]), CPU)


def test_the_gradient_of_a_step_is_the_naive_loops(
    encoder: Encoder, values: list[FieldValues], names: list[str], config: Config
) -> None:
    """Naive: one prompt at a time, each with all field names encoded anew."""
    settings = config(micro_batch=4).tuning
    prompts = field_prompts(values, names, config()).train[:10]
    scatter(encoder.model)
    labels = torch.tensor([prompt.field for prompt in prompts])
    fields, tokens = encoder.tokenize(names), encoder.tokenize([prompt.text for prompt in prompts])
    found = contrast(encoder, fields, tokens, labels, settings)
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
    stepper = Stepper(encoder, tuning, num_prompts=45)
    rates = []
    while stepper.step < stepper.steps:
        rates.append(stepper.rate())
        stepper.step += 1
    assert len(rates) == 10
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert 0 < rates[-1] < 0.2


def test_tuning_teaches_fields_and_one_seed_gives_one_result(
    values: list[FieldValues], names: list[str], config: Config
) -> None:
    chosen = config(epochs=8, batch_size=8, warmup_steps=2, lora_dropout=0.05)
    prompts = field_prompts(values, names, chosen)
    state = torch.get_rng_state()
    first, again = (
        tune(load_encoder(chosen, CPU), prompts, chosen.tuning, seed=1, log=lambda record: None) for _ in range(2)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.vectors, again.vectors)
    assert first.vectors.shape == (9, 3, 32)
    assert first.history[-1]["loss"] < 0.7 * first.history[1]["loss"]
    assert first.history[-1]["accuracy"] > 0.6 > first.history[0]["accuracy"]


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
