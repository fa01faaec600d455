"""`fieldctr texts dataset=... entity=user`: what a language model reads of users, items or rows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fieldctr.commands.entity_vectors import Reading, author_of, embed_entities, told
from fieldctr.config import Positive, RuntimeConfig, parse
from fieldctr.data.prepare import prepared
from fieldctr.llm.text_vectors import TextVectorFiles, entity_texts, load
from fieldctr.training.runtime import Runtime


@dataclass(frozen=True)
class TextsConfig:
    """The root of `fieldctr texts`."""

    data_root: str
    outputs: str
    dataset: dict[str, Any]
    encoder: dict[str, Any]
    knowledge: dict[str, Any]
    runtime: RuntimeConfig
    entity: str
    samples: Positive
    encode: bool


def main(node: dict[str, Any]) -> None:
    """Print some of the texts and how many there are; with `encode` make their vectors, and print what they cost."""
    config = parse(TextsConfig, node, "")
    outputs = Path(config.outputs)
    dataset = prepared(config.dataset, data_dir=outputs / "data")
    if not config.encode:
        each = entity_texts(dataset, told(config.entity, dataset, config.dataset)).texts
        if config.knowledge:
            author = author_of(config.knowledge, config.entity, torch.device("cpu"))
            each = [author.asked(text) for text in each]
        print(shown(config.entity, each, config.samples))
        return
    runtime = Runtime.start(config.runtime, precision="fp32", deterministic=True, cache=outputs / "machine")
    reading = Reading(config.encoder, knowledge=config.knowledge)
    folder = embed_entities(config.entity, dataset, config.dataset, reading, outputs=outputs, device=runtime.device)
    print("\n".join([*account(config.entity, load(folder)), f"in {folder}"]))


def shown(kind: str, texts: list[str], samples: int) -> str:
    """Samples, evenly from all, and how much there is to read."""
    different = sorted(set(texts))
    step = max(1, len(different) // samples)
    letters = sum(map(len, different))
    size = f"{len(texts):,} different {kind} entities, {len(different):,} different texts"
    mean, longest = letters / len(different), max(map(len, different))
    return "\n".join(
        [
            *different[::step][:samples],
            "",
            f"{size} of {mean:,.0f} letters on average, {longest:,} at most, {letters:,} in all. "
            "encode=true reads them",
        ]
    )


def account(kind: str, found: TextVectorFiles) -> list[str]:
    """What is there, and what it cost."""
    size, cost = found.account, found.account["cost"]
    lines = [
        f"{size['entities']:,} different {kind} entities, {size['vectors']:,} texts, "
        f"vectors of width {found.vectors.shape[1]}"
    ]
    if cost:
        clock = "CPU s" if cost["clock"] == "cpu" else "s"
        lines.append(
            f"{cost['calls']:,} calls, {cost['tokens']:,} tokens, {cost['seconds']:,} {clock}, {cost['peak_mb']:,} MB; "
            f"{cost['cut']:,} texts were longer than the model's window and are cut"
        )
    if written := size.get("knowledge"):
        cost = written["cost"]
        clock = "CPU s" if cost["clock"] == "cpu" else "s"
        lines.append(
            f"before: {cost['calls']:,} calls of the writer, {cost['read']:,} tokens read, {cost['written']:,} "
            "written, "
            f"{cost['seconds']:,} {clock}, {cost['peak_mb']:,} MB; {cost['cut']:,} prompts were cut. It wrote, such as:"
        )
        lines += [f"  {sample}" for sample in written["samples"]]
    return lines
