"""`fieldctr list [models|datasets|...]`: what there is to choose from, from the headers of the YAML files."""

import importlib
from pathlib import Path

from fieldctr.catalog import groups, headline, options, plural, without_own
from fieldctr.errors import UserError, nearest


def main(*arguments: str) -> None:
    """Print the options of the named groups, of all groups without a name."""
    known = {plural(group): group for group in groups()}
    if {"--help", "-h"} & {*arguments}:
        print(f"usage: fieldctr list [{' | '.join(known)}] [--config-dir DIR]")
        print("       fieldctr list models dataset=NAME [embedding_dim=N]    their parameters and FLOPs on a table")
        return
    words, own = without_own(arguments)
    overrides = [word for word in words if "=" in word]
    if overrides:
        if words[0] not in ("models", "model") or len(overrides) < len(words) - 1:
            raise UserError(f"{overrides[0]} belongs to: fieldctr list models dataset=NAME")
        importlib.import_module("fieldctr.commands.model_sizes").main(*overrides, own=own)  # needs torch
        return
    for word in words:
        if word not in known and word not in known.values():
            raise UserError(f"nothing to list called '{word}'. {nearest(word, known)}All: {', '.join(known)}")
    for group in [known.get(word, word) for word in words] or list(known.values()):
        print(table(group, own))


def table(group: str, own: str | Path | None = None) -> str:
    """One line for each option of a group."""
    names = options(group, own)
    width = max(map(len, names), default=0)
    lines = [f"  {name:{width}}  {headline(group, name, own)}".rstrip() for name in names]
    return "\n".join([f"{group}=", *lines, ""])
