"""What SSFT cost, and what other ways to use a language model on the same table would, on the same encoder.

LLaCTR (arXiv:2505.14057) claims a tenth to a hundredth of the time of methods that encode every sample, or every user
and item. Measured here on a few texts of each kind, because the whole would take hours.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from fieldctr.config import TuningConfig
from fieldctr.llm.encoder import Encoder
from fieldctr.llm.prompts import Prompt
from fieldctr.llm.ssft import labels_of, objective

LONG_BATCH = 8  # texts of hundreds of tokens: larger batches are slower


class Units(NamedTuple):
    """What another method encodes one by one."""

    texts: list[str]  # a sample
    count: int  # of all of them


class Alternatives(NamedTuple):
    """What SSFT is compared with."""

    templates: dict[str, list[Prompt]]  # the same values asked by each template; the first is the one in use
    rows: Units
    entities: dict[str, Units]  # users, items, ...


class Clock:
    """Seconds since it was made: the processor's, whose neighbours do not count, or the wall's where a GPU works."""

    def __init__(self, device: torch.device) -> None:
        self.name = "wall" if device.type == "cuda" else "cpu"
        self.read = time.perf_counter if device.type == "cuda" else time.process_time
        self.began = self.read()

    def seconds(self) -> float:
        return self.read() - self.began


def alternatives(
    encoder: Encoder, others: Alternatives, fields: list[str], settings: TuningConfig, *, prompts: int, seconds: float
) -> dict[str, Any]:
    """SSFT in each template, given that its `prompts` took `seconds` in the first, and encoding each unit once.

    A text that is longer than the model's window counts as far as it fits.
    """
    templates = ssft_seconds(encoder, others.templates, fields, settings, prompts=prompts, seconds=seconds)
    rows = encoding(encoder, others.rows, settings.micro_batch)
    entities = {kind: encoding(encoder, units, settings.micro_batch) for kind, units in others.entities.items()}
    both = {"rows": rows["seconds"], "entities": sum(found["seconds"] for found in entities.values())}
    over = {
        template: {kind: round(total / max(ssft["seconds"], 0.01), 2) for kind, total in both.items() if total}
        for template, ssft in templates.items()
    }
    return {"templates": templates, "rows": rows, "entities": entities, "over_ssft": over}


def ssft_seconds(
    encoder: Encoder,
    templates: dict[str, list[Prompt]],
    fields: list[str],
    settings: TuningConfig,
    *,
    prompts: int,
    seconds: float,
) -> dict[str, dict[str, float]]:
    """Per template its tokens a prompt and the seconds of SSFT; nothing for an encoder that is not tuned.

    Two templates differ by the training steps of their prompts, which are measured. Evaluations count as they were.
    """
    found: dict[str, dict[str, float]] = {}
    used = 0.0
    for template, asked in templates.items() if settings.epochs else ():
        tokens = _fitting(encoder, [prompt.text for prompt in asked])
        long = template == "long"
        batch = replace(settings, micro_batch=min(LONG_BATCH, settings.micro_batch)) if long else settings
        step = _step_seconds(encoder, objective(encoder, fields, batch), tokens, labels_of(asked)) / len(asked)
        used = used or step
        found[template] = {
            "tokens_each": _mean_length(tokens),
            "seconds": round(max(0.0, seconds + settings.epochs * prompts * (step - used)), 1),
        }
    return found


def encoding(encoder: Encoder, units: Units, micro_batch: int) -> dict[str, Any]:
    """Encoding every unit once, without any tuning."""
    tokens = _fitting(encoder, units.texts)
    clock = Clock(encoder.device)
    encoder.embed_all(tokens, micro_batch=min(LONG_BATCH, micro_batch))
    each = clock.seconds() / len(tokens)
    return {"count": units.count, "tokens_each": _mean_length(tokens), "seconds": round(each * units.count)}


def _step_seconds(
    encoder: Encoder,
    step: Callable[[list[list[int]], torch.Tensor], float],
    tokens: list[list[int]],
    labels: torch.Tensor,
) -> float:
    encoder.model.train()
    with torch.random.fork_rng(devices=[]):
        clock = Clock(encoder.device)
        step(tokens, labels)
        seconds = clock.seconds()
    encoder.model.zero_grad()
    return seconds


def _fitting(encoder: Encoder, texts: list[str]) -> list[list[int]]:
    return [ids[: encoder.max_tokens] for ids in encoder.tokenizer(texts, verbose=False)["input_ids"]]


def _mean_length(tokens: list[list[int]]) -> float:
    return round(sum(map(len, tokens)) / len(tokens), 1)
