"""`fieldctr clean`: remove tables, vectors, answers and shards below outputs that nothing refers to; never a run."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fieldctr.artifacts import is_earlier
from fieldctr.commands.stored import (
    existing,
    leftovers,
    part_folders,
    run_folders,
    shard_folders,
    size_of,
    stage_folders,
)
from fieldctr.config import parse
from fieldctr.data.prepare import VERSION
from fieldctr.data.unfinished import can_go_on
from fieldctr.disk import read_object
from fieldctr.llm.account import ACCOUNT
from fieldctr.locks import remove_unowned
from fieldctr.run_folders import read_by, readers_of

KNOWLEDGE = "knowledge"  # what decoders wrote, and the key of it in an account
STAGES = ("data", "field_embeddings", "text_vectors", "value_vectors", "ctrl", "frames", KNOWLEDGE)  # what runs lead to


@dataclass(frozen=True)
class CleanConfig:
    """The root of `fieldctr clean`."""

    data_root: str
    outputs: str
    runs: str | list[str] | None
    dry_run: bool


def main(node: dict[str, Any]) -> None:
    """Print what nothing refers to, and why, with its size; remove it unless `dry_run`. What a process uses stays."""
    config = parse(CleanConfig, node, "")
    outputs = existing(config.outputs)
    found = dict(unused(outputs, config.runs))
    if not found:
        print(f"nothing to remove: all below {outputs} is referred to")
        return
    sizes = {folder: size_of([folder]) for folder in found}
    gone = list(found) if config.dry_run else remove_unowned(found)
    for folder in gone:
        print(f"{sizes[folder] / 1e6:10,.1f} MB  {folder}  {found[folder]}")
    total = f"{len(gone)} folder{'s' * (len(gone) != 1)}, {sum(sizes[folder] for folder in gone) / 1e6:,.1f} MB"
    print(f"{total}; nothing was removed: dry_run" if config.dry_run else f"removed {total}")
    if held := len(found) - len(gone):
        print(f"{held} more {'is' if held == 1 else 'are'} in use by another process")


def unused(outputs: Path, runs: str | list[str] | None) -> Iterator[tuple[Path, str]]:
    """Folder and reason."""
    needed = {name for run in run_folders(outputs, runs) for name in read_by(run)}
    stages = [folder for folder in stage_folders(outputs) if folder.parent.name in STAGES]
    kept = {folder for folder in stages if folder.name in needed or any(readers_of(folder))}
    kept |= {answers for folder in kept if (answers := _answers_behind(folder))}
    for folder in stages:
        if folder not in kept:
            yield folder, "of an earlier version, and no run reads it" if is_earlier(folder) else "no run reads it"
    for folder in shard_folders(outputs):
        if not can_go_on(folder, VERSION):
            yield folder, "shards that nothing will go on from"
    for folder in part_folders(outputs):
        yield folder, "vectors of texts that a stopped call began; the same call would go on"
    for folder in leftovers(outputs):
        yield folder, "left by a call that was killed"


def _answers_behind(folder: Path) -> Path | None:
    """What a decoder wrote about the texts whose vectors lie in `folder`."""
    account = folder / ACCOUNT
    written = ((read_object(account) if account.exists() else None) or {}).get(KNOWLEDGE)
    return folder.parent.parent / KNOWLEDGE / written["digest"] if written else None
