"""`fieldctr list [models|datasets|...]`: what there is to choose from, from the headers of the YAML files."""

import importlib

from fieldctr.catalog import groups, headline, options
from fieldctr.errors import UserError, nearest


def main(*arguments: str) -> None:
    """Print the options of the named groups, of all groups without a name."""
    known = {f"{group}s": group for group in groups()}
    if arguments and arguments[0] in ("--help", "-h"):
        print(f"usage: fieldctr list [{' | '.join(known)}]")
        print("       fieldctr list models dataset=NAME [embedding_dim=N]    their parameters and FLOPs on a table")
        return
    overrides = [word for word in arguments if "=" in word]
    if overrides:
        if arguments[0] not in ("models", "model") or len(overrides) < len(arguments) - 1:
            raise UserError(f"{overrides[0]} belongs to: fieldctr list models dataset=NAME")
        importlib.import_module("fieldctr.commands.model_sizes").main(*overrides)  # needs torch
        return
    for word in arguments:
        if word not in known and word not in known.values():
            raise UserError(f"nothing to list called '{word}'. {nearest(word, known)}All: {', '.join(known)}")
    for group in [known.get(word, word) for word in arguments] or list(known.values()):
        print(table(group))


def table(group: str) -> str:
    """One line for each option of a group."""
    names = options(group)
    width = max(map(len, names), default=0)
    lines = [f"  {name:{width}}  {headline(group, name)}" for name in names]
    return "\n".join([f"{group}=", *lines, ""])
