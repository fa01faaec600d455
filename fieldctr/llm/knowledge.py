"""Knowledge: what a decoder writes about each user and item, made once, for an encoder to read behind the attributes.

answers.jsonl  one object a line, in the order of the texts: {"text", "answer"}
account.json   samples, and what they cost

Source: KAR (arXiv:2306.10933), sections 4.1 and 4.2: prompts about a user's preferences and an item's facts.
Differs: the most likely token is taken at each step, so that equal prompts give equal answers; the released answers are
ChatGPT's. A prompt that is longer than the window loses its beginning, and is counted.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fieldctr import signals
from fieldctr.config import EncoderConfig, Positive
from fieldctr.data.table import refused_if_changed
from fieldctr.disk import read_object, write_json, write_text
from fieldctr.errors import UserError
from fieldctr.llm.account import ACCOUNT, read_account
from fieldctr.llm.cost import Clock
from fieldctr.llm.encoder import load_decoder
from fieldctr.llm.field_embeddings import encoder_key, peak_mb
from fieldctr.llm.parts import made_in_parts
from fieldctr.llm.text_vectors import PROGRESS, WatchFor, samples
from fieldctr.llm.texts import filled
from fieldctr.llm.tokens import by_length, tokens_of
from fieldctr.llm.weights import model_files
from fieldctr.raw_files import stamps

VERSION = 1  # of prompting and decoding; raise it when equal settings give other answers
ANSWERS = "answers.jsonl"
TEXT = "{text}"  # in a prompt: what is said of an entity without a decoder
KIND = "{kind}"  # and what it is, such as user


@dataclass(frozen=True)
class KnowledgeConfig:
    """What a decoder is asked to write about users and items, before an encoder reads of them. Node `knowledge`."""

    writer: EncoderConfig  # the decoder; of an encoder's keys those of its model, max_tokens and tuning.micro_batch
    prompts: dict[str, Any]  # by kind of entity; default for all others
    new_tokens: Positive  # at most, of an answer


class Author(NamedTuple):
    """A decoder and what it is asked about an entity of one kind."""

    config: EncoderConfig
    kind: str
    prompt: str
    new_tokens: int

    def asked(self, text: str) -> str:
        """The prompt about one entity."""
        return filled(self.prompt, {"text": text, "kind": self.kind})

    def key(self, device: torch.device, memo: Path) -> dict[str, object]:
        """Everything that changes its answers, the texts apart."""
        if self.config.kind == "random":
            raise UserError("knowledge.writer.kind=random has no model that writes. Take a decoder")
        return {
            "version": VERSION,
            "kind": self.kind,
            "prompt": self.prompt,
            "new_tokens": self.new_tokens,
            "writer": encoder_key(self.config, device, memo=memo),
            "window": self.config.max_tokens,
            "micro_batch": self.config.tuning.micro_batch,
        }


def knowledge(author: Author, texts: Sequence[str], *, root: Path, device: torch.device, watch: WatchFor) -> Path:
    """The folder below `root` with what the author answers about each of these texts, equal ones once.

    A second call with an equal key loads no model; one after a kill goes on behind the last batch.
    """
    config, different = author.config, sorted(set(texts))
    before = stamps(model_files(config.model, config.origin) if config.kind == "pretrained" else ())
    key = {**author.key(device, root / ".digests.json"), "texts": different}

    def build(folder: Path, work: Path) -> None:
        with refused_if_changed(before):
            answers, cost = written(author, different, work, device=device, models=root.parent / "models", watch=watch)
        lines = [json.dumps({"text": text, "answer": answer}) for text, answer in zip(different, answers, strict=True)]
        write_text(folder / ANSWERS, "".join(f"{line}\n" for line in lines))
        write_json(folder / ACCOUNT, {"texts": len(different), "samples": samples(answers), "cost": cost})

    return made_in_parts(root, key, build, doing="writes about the same texts")


def load(folder: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """The answer to each text, and the account; UserError when a byte has changed since they were written."""
    account = read_account(folder)
    lines = (folder / ANSWERS).read_text(encoding="utf-8").splitlines()
    return {record["text"]: record["answer"] for record in map(json.loads, lines)}, account


def written(
    author: Author, texts: Sequence[str], work: Path, *, device: torch.device, models: Path, watch: WatchFor
) -> tuple[list[str], dict[str, Any]]:
    """The answers, batch by batch into `work`; what is there is not asked again. And what they cost."""
    model, tokenizer = load_decoder(author.config, device, converted=models)
    window = min(author.config.max_tokens, tokenizer.model_max_length - author.new_tokens)
    asked = [chat(tokenizer, author.asked(text)) for text in texts]
    tokens = tokens_of(tokenizer, asked, window, keep="end", special=not tokenizer.chat_template)
    batches = list(by_length(tokens.sizes, author.config.tuning.micro_batch))
    done = read_object(work / PROGRESS) if (work / PROGRESS).exists() else None
    cost = {"calls": 0, "read": 0, "written": 0, "seconds": 0.0, **(done or {})}
    with watch(len(texts), len(tokens.ids), cost["read"]) as watching:
        for number, batch in enumerate(batches):
            if number < cost["calls"]:
                continue
            signals.check()
            clock = Clock(device)
            answers, count = generated(model, tokenizer, tokens.of(batch), author.new_tokens)
            write_json(work / f"{number:06d}.json", {"answers": answers})
            cost = {
                "calls": number + 1,
                "read": cost["read"] + int(tokens.sizes[batch].sum()),
                "written": cost["written"] + count,
                "seconds": cost["seconds"] + clock.seconds(),
            }
            write_json(work / PROGRESS, cost)
            watching.show(cost["read"], lambda rate: f"{rate:,.0f} tokens of prompts/s")
    found = [""] * len(texts)
    for number, batch in enumerate(batches):
        for i, answer in zip(batch, (read_object(work / f"{number:06d}.json") or {})["answers"], strict=True):
            found[i] = answer
    said = {"clock": Clock(device).name, "peak_mb": round(peak_mb(device))}
    return found, cost | {"seconds": round(cost["seconds"], 2), "cut": tokens.cut, **said}


def chat(tokenizer: Any, prompt: str) -> str:
    """The prompt as the model is used to be asked: in its chat template, where it has one."""
    if not tokenizer.chat_template:
        return prompt
    asked = [{"role": "user", "content": prompt}]
    # Qwen3 would think aloud, ten times the tokens; other templates know no such word.
    return tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True, enable_thinking=False)


@torch.no_grad()
def generated(model: Any, tokenizer: Any, tokens: Sequence[list[int]], new_tokens: int) -> tuple[list[str], int]:
    """The model's most likely answer to each prompt, at most so many tokens, and how many tokens all of them have."""
    from transformers import GenerationConfig

    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0
    longest = max(map(len, tokens))
    padded = torch.tensor([[pad] * (longest - len(ids)) + ids for ids in tokens], device=model.device)  # on the left
    mask = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in tokens], device=model.device)
    # Not the model's own settings, by which many draw at random.
    ends = model.generation_config.eos_token_id
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=new_tokens,
        use_cache=True,
        pad_token_id=pad,
        eos_token_id=tokenizer.eos_token_id if ends is None else ends,
    )
    out = model.generate(input_ids=padded, attention_mask=mask, generation_config=settings)[:, longest:]
    answers = [" ".join(text.split()) for text in tokenizer.batch_decode(out, skip_special_tokens=True)]
    return answers, int((out != pad).sum())


def checked_prompt(prompts: Mapping[str, object], kind: str) -> str:
    """What is asked about an entity of this kind; UserError where no prompt is given, or one without the text."""
    where = kind if kind in prompts else "default"
    prompt = prompts.get(where)
    if not isinstance(prompt, str) or prompt.count(TEXT) != 1:
        got = f"got {prompt}" if where in prompts else "it is missing"
        raise UserError(
            f"knowledge.prompts.{where}: expected a text with {TEXT} once, which stands for what is known of the {kind}"
            f" ({KIND} may stand for that word); {got}"
        )
    return prompt
