"""What a decoder writes about entities: greedy, once; what it refuses. tests/test_every_operation.py kills it."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fieldctr.config import EncoderConfig
from fieldctr.errors import UserError
from fieldctr.llm import knowledge as module
from fieldctr.llm import text_vectors
from fieldctr.llm.encoder import load_decoder, tiny_llama
from fieldctr.llm.knowledge import Author, checked_prompt, generated, knowledge, load
from fieldctr.llm.text_vectors import Texts, Writer
from fieldctr.llm.texts import Sentence

CPU = torch.device("cpu")
Config = Callable[..., EncoderConfig]
TEXTS = [f"This is a user, age is {i % 17}{' and more' * (i % 3)}." for i in range(40)]


def author(config: EncoderConfig, **changes: Any) -> Author:
    return Author(config, "user", "{text} What does this {kind} like?", 5)._replace(**changes)


def made(root: Path, chosen: Author, texts: Sequence[str] = TEXTS) -> Path:
    watch: Any = SimpleNamespace(show=lambda step, status: None)
    return knowledge(chosen, texts, root=root / "knowledge", device=CPU, watch=lambda *size: nullcontext(watch))


def greedy(model: Any, tokenizer: Any, prompt: str, count: int) -> str:
    """Token by token, without a cache, a batch or padding."""
    ids = tokenizer(prompt)["input_ids"]
    start = len(ids)
    for _ in range(count):
        with torch.no_grad():
            best = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        ids.append(best)
        if best == tokenizer.eos_token_id:
            break
    return " ".join(tokenizer.decode(ids[start:], skip_special_tokens=True).split())


def test_each_text_has_the_most_likely_answer_to_its_prompt(tmp_path: Path, config: Config) -> None:
    chosen = author(config(micro_batch=4))
    answers, account = load(made(tmp_path, chosen))
    assert list(answers) == sorted(set(TEXTS))
    model, tokenizer = load_decoder(chosen.config, CPU, converted=tmp_path)
    for text in answers:
        assert answers[text] == greedy(model, tokenizer, f"{text} What does this user like?", 5)
    cost = account["cost"]
    assert cost["read"] == sum(len(tokenizer(chosen.asked(text))["input_ids"]) for text in answers)
    assert 0 < cost["written"] <= 5 * len(answers)
    assert cost["calls"] == -(-len(answers) // 4)
    assert cost["cut"] == 0


def test_a_second_call_makes_no_model_call_and_equal_keys_give_equal_bytes(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made(tmp_path / "a", author(config()))
    assert (made(tmp_path / "b", author(config())) / module.ANSWERS).read_bytes() == (
        first / module.ANSWERS
    ).read_bytes()
    others = [author(config(), prompt="{text}?"), author(config(), new_tokens=4), author(config(seed=9))]
    folders = [made(tmp_path / "a", one) for one in others] + [made(tmp_path / "a", author(config()), TEXTS[:3])]
    assert len({first.name, *(folder.name for folder in folders)}) == 5
    monkeypatch.setattr(module, "load_decoder", None)
    assert made(tmp_path / "a", author(config(lr=3.0)), TEXTS[::-1]) == first


def test_prompts_end_with_the_question_when_they_are_too_long(tmp_path: Path, config: Config) -> None:
    _, account = load(made(tmp_path, author(config(max_tokens=30)), ["x" * 90, "y"]))
    assert account["cost"]["cut"] == 1
    assert account["cost"]["read"] < 60


def test_a_models_own_sampling_is_left_out_and_a_chat_model_is_asked_as_one() -> None:
    torch.manual_seed(3)
    model, tokenizer = tiny_llama()
    tokens = tokenizer(["some text", "another one, longer"])["input_ids"]
    plain = generated(model, tokenizer, tokens, 6)
    model.generation_config.update(do_sample=True, temperature=9.0, top_k=50)
    torch.manual_seed(7)
    assert generated(model, tokenizer, tokens, 6) == plain
    assert module.chat(tokenizer, "hello") == "hello"
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    assert module.chat(tokenizer, "hello") == "<user>hello<assistant>"


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ({}, r"knowledge\.prompts\.default: expected a text with \{text\} once.*it is missing"),
        ({"user": "nothing"}, r"knowledge\.prompts\.user: .*got nothing"),
        ({"default": "{text} {text}"}, r"knowledge\.prompts\.default"),
        ({"default": 3}, r"knowledge\.prompts\.default"),
    ],
)
def test_a_prompt_that_does_not_say_the_text_is_refused(prompts: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        checked_prompt(prompts, "user")
    assert checked_prompt({"default": "{text}", "user": "a {text}"}, "user") == "a {text}"
    assert checked_prompt({"default": "{text}", "user": "a {text}"}, "ad") == "{text}"


def test_what_cannot_write_is_refused(tmp_path: Path, config: Config) -> None:
    with pytest.raises(UserError, match=r"knowledge\.writer\.kind=random has no model that writes"):
        made(tmp_path, author(config("random")))


def test_the_encoder_reads_the_answer_behind_the_text(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = np.arange(4, dtype=np.int32)[:, None]
    monkeypatch.setattr(text_vectors, "entity_texts", lambda *given: Texts([3], keys, ["a", "b", "a", "c"]))
    asked: list[list[str]] = []

    def write(texts: Sequence[str]) -> tuple[dict[str, str], dict[str, Any]]:
        asked.append(list(texts))
        return {text: f"likes {text}" for text in texts}, {"digest": "x"}

    def read(key: str | None) -> Path:
        watch: Any = SimpleNamespace(show=lambda step, status: None)
        dataset: Any = SimpleNamespace(digest="t")
        return text_vectors.text_vectors(
            config(), dataset, [Sentence("x", [0], ["age"], ["age"])], root=tmp_path, device=CPU,
            watch=lambda *size: nullcontext(watch), writer=Writer({"who": key}, write) if key else None,
        )  # fmt: skip

    plain, first, second = read(None), read("one"), read("two")
    assert len({plain, first, second}) == 3
    found = text_vectors.load(first)
    assert found.account["samples"] == ["a likes a", "b likes b", "a likes a", "c likes c"]
    assert found.account["knowledge"] == {"digest": "x"}
    assert "knowledge" not in text_vectors.load(plain).account
    assert found.rows.tolist() == [0, 1, 0, 2]
    assert read("one") == first
    assert len(asked) == 2
