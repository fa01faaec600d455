"""`fieldctr ssft list | show DIGEST | verify`: what field vectors are there, what they cost, whether they are whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldctr.artifacts import KEY_FILE
from fieldctr.errors import UserError
from fieldctr.llm.account import read_account

if TYPE_CHECKING:
    from fieldctr.llm.field_embeddings import FieldEmbeddings  # imports torch, which a list needs not

USAGE = "usage: fieldctr ssft list | show DIGEST | verify  [outputs=FOLDER]"
HELP = f"""{USAGE}

  list      the field vectors below outputs/field_embeddings: fields, epochs, accuracy
  show      what one set cost, beside other ways, and where its pictures are; the first digits of its name are enough
  verify    read all of them again and say which are whole

fieldctr ssft --help says how to make some."""


def main(action: str, *arguments: str) -> None:
    """Look below outputs/field_embeddings, or below OUTPUTS/field_embeddings with outputs=OUTPUTS."""
    if {"--help", "-h"} & set(arguments):
        print(HELP)
        return
    words = [word for word in arguments if "=" not in word]
    given = dict(word.split("=", 1) for word in arguments if "=" in word)
    if given.keys() - {"outputs"} or len(words) != (action == "show"):
        raise UserError(USAGE)
    root = Path(given.get("outputs", "outputs")) / "field_embeddings"
    folders = sorted(path.parent for path in root.glob(f"*/{KEY_FILE}"))
    if action == "show":
        from fieldctr.llm.field_embeddings import load

        found = load(_named(words[0], folders))
        write_pictures(found)
        print(report(found))
    else:
        for folder in folders:
            print(_line(folder, whole=action == "verify"))
        print(f"{len(folders)} in {root}")


def report(found: FieldEmbeddings) -> str:
    """Account of one set of vectors, for reading."""
    from fieldctr.llm.ssft import spell

    account = found.account
    lines = [
        f"{len(account['fields'])} fields, {account['prompts']:,} prompts, {account['heldout']:,} held out; "
        f"vectors of width {found.vectors.shape[2]}",
        *(spell(record) for record in account["history"]),
        *(costs(account["cost"]) if account["cost"] else []),
        f"in {found.folder}, with pictures: {', '.join(sorted(path.name for path in found.folder.glob('*.png')))}",
    ]
    return "\n".join(lines)


def costs(cost: dict[str, Any]) -> list[str]:
    """What SSFT took, and what other ways would by a sample."""
    clock = "CPU s" if cost["clock"] == "cpu" else "s"
    lines = [
        f"SSFT: {cost['calls']:,} calls, {cost['tokens']:,} tokens, {cost['tune_s']} {clock}, {cost['peak_mb']:,} MB"
    ]
    for template, ssft in cost["templates"].items():
        text = f"  template {template}: {ssft['tokens_each']} tokens a prompt, {ssft['seconds']:,} {clock}"
        over = [f"{kind} {times:,} times that" for kind, times in cost["over_ssft"][template].items()]
        lines.append(", ".join([text, *over]))
    lines.append("encoding instead, once and without tuning:")
    for kind, found in {"rows": cost["rows"], **cost["entities"]}.items():
        lines.append(f"  {kind}: {found['count']:,} of {found['tokens_each']} tokens, {found['seconds']:,} {clock}")
    return lines


def write_pictures(found: FieldEmbeddings) -> None:
    """Similarity of the fields and a map of them, before and after, beside the vectors; once."""
    names = found.account["fields"]
    if (found.folder / "map_after.png").exists():  # the last of them
        return
    from fieldctr.analysis.plots import Words, field_map, heatmap, save

    words = Words("field", "with field", "cosine")
    for when, vectors in (("before", found.vectors[0]), ("after", found.vectors[-1])):
        unit = (vectors / vectors.norm(dim=1, keepdim=True)).numpy()
        similarity = heatmap(names, unit @ unit.T, f"cosine of field vectors {when} SSFT", words)
        save(similarity, found.folder / f"similarity_{when}")
        save(field_map(names, unit, f"field vectors {when} SSFT"), found.folder / f"map_{when}")


def _line(folder: Path, *, whole: bool) -> str:
    account = read_account(folder)
    last = account["history"][-1]
    accuracy = f"accuracy {last['accuracy']:.3f}" if "accuracy" in last else "no accuracy"
    size = f"{len(account['fields'])} fields, epoch {last['epoch']}, {accuracy}"
    return f"{folder.name}  {size}{', whole' if whole else ''}"


def _named(word: str, folders: list[Path]) -> Path:
    matching = [folder for folder in folders if folder.name.startswith(word)]
    if len(matching) != 1:
        raise UserError(f"{len(matching)} sets of field vectors begin with '{word}'. All: fieldctr ssft list")
    return matching[0]
