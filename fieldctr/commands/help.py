"""`fieldctr COMMAND --help`: what a command does, the groups it reads, each key with default, range and comment."""

import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from fieldctr.catalog import chosen, groups, headline, options, without_own, yaml_file
from fieldctr.commands.keys import Key, defaults_of, hint, option_keys, root_keys, targets
from fieldctr.commands.words import COMMANDS, INSPECTIONS, PARTS
from fieldctr.errors import UserError

MIDDLE = 38  # column of what is said of a key
LONGEST = 60  # letters of a default that are shown
FLAGS = """also
  -m                                  a run for each of a,b,c behind a key: -m model=lr,fm seed=1,2,3
  --cfg job                           print the configuration, and do nothing
  --config-dir DIR                    a folder of your own YAML: DIR/model/mine.yaml is model=mine
  trust=PACKAGE                       let YAML name code of that package, which may lie in this folder
  hydra.run.dir=DIR                   where the results go, if the command leaves a folder
  --hydra-help                        what else Hydra takes"""
OF_RUNS = ("study", "search")
FIELDS = "dataset.fields."  # keys of which a table may have hundreds


def main(command: str, *arguments: str) -> None:
    """Print the help of a command of the configuration, with the options and the own folder of this call."""
    words, own = without_own(word for word in arguments if word not in ("--help", "-h"))
    asked = dict(word.split("=", 1) for word in words if "=" in word)
    print("\n".join(page(command, {key: value for key, value in asked.items() if key in groups()}, own)))


def parts(command: str) -> None:
    """Print the help of a word that stands for several commands."""
    print(f"fieldctr {command}: {COMMANDS[command]}\n\nusage: fieldctr {command} {' | '.join(PARTS[command])} ...\n")
    for part in PARTS[command]:
        print(f"  fieldctr {command} {part} --help    {purpose(f'{command}_{part}')}")


def page(command: str, asked: dict[str, str], own: str | Path | None = None) -> Iterator[str]:
    """The lines of a command's help."""
    taken = defaults_of(command)
    for group, option in asked.items():
        if group not in taken:
            raise UserError(f"{command.replace('_', ' ')} reads no group '{group}'. All: {', '.join(taken)}")
        chosen(group, option, own)
    taken |= asked
    name = command.replace("_", " ")
    yield f"fieldctr {name}: {purpose(command)}\n"
    yield f"usage: fieldctr {name} [-m] [--config-dir DIR] [KEY=VALUE ...]"
    for word in [*PARTS.get(command, ()), *(INSPECTIONS if command == "ssft" else ())]:
        yield f"       fieldctr {name} {word} --help"
    if taken:
        yield "\ngroups, each with what is taken now (all: fieldctr list; one in full: fieldctr explain model=fat)"
    for group, option in taken.items():
        yield from described(f"{group}={option}", headline(group, option, own) or _without_one(group, own))
    yield "\nkeys, each with its default"
    paths = targets(taken, own)
    yield from lines(root_keys(command), command, paths)
    for group, option in taken.items():
        if keys := [key for key in option_keys(group, option, own) if not key.name.startswith(FIELDS)]:
            yield f"\n{group}={option}"
            yield from lines(keys, command, paths)
    if command in OF_RUNS:
        yield "\nKeys of `fieldctr train` may stand here as well and go to every run: fieldctr train --help"
    yield f"\n{FLAGS}"


def purpose(command: str) -> str:
    """What a command's YAML says that it is for."""
    path = yaml_file(command)
    first = path.read_text(encoding="utf-8").splitlines()[0] if path else ""
    return first.partition(": ")[2] or COMMANDS[command.partition("_")[0]]


def lines(keys: Iterable[Key], command: str, targets: Mapping[str, str]) -> Iterator[str]:
    """Key, default, range and comment of each."""
    for key in keys:
        name = key.name if key.default == "..." else f"{key.name}={_short(key.default)}"
        yield from described(name, "; ".join(text for text in (allowed(key, command, targets), key.comment) if text))


def allowed(key: Key, command: str, targets: Mapping[str, str]) -> str:
    """A key's type and range in words; '' where the comment lists the values, or only its owner knows them."""
    found = hint(key.name, command, targets)
    if found is None:
        return ""
    from fieldctr.config import spell

    text = spell(found)
    values = text.split(" | ")
    return "" if len(values) > 1 and all(value in key.comment for value in values) else text


def described(name: str, text: str) -> Iterator[str]:
    """A name and what is said of it, in two columns."""
    width = max(60, min(120, shutil.get_terminal_size((110, 24)).columns)) - MIDDLE
    told = textwrap.wrap(text, width) or [""]
    if len(name) > MIDDLE - 4:
        yield f"  {name}"
    else:
        yield f"  {name:{MIDDLE - 2}}{told.pop(0)}".rstrip()
    yield from (f"{'':{MIDDLE}}{line}" for line in told if line)


def _short(default: str) -> str:
    return default if len(default) <= LONGEST else f"{default[:LONGEST]}..."


def _without_one(group: str, own: str | Path | None) -> str:
    """What is said of a group whose option follows from others."""
    return f"the file of that name, if there is one; there are {len(options(group, own))}"
