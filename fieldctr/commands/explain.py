"""`fieldctr explain model=fat`: the YAML of an option as it stands, with its paper and its parameters; or one key."""

from collections.abc import Iterator
from pathlib import Path

from fieldctr.catalog import chosen, groups, options, without_own
from fieldctr.commands.help import lines
from fieldctr.commands.keys import bases, defaults_of, option_keys, root_keys, targets
from fieldctr.commands.words import COMMANDS
from fieldctr.errors import UserError, nearest

USAGE = """usage: fieldctr explain GROUP=OPTION ... [--config-dir DIR]
       fieldctr explain KEY ...

  fieldctr explain model=fat            its YAML: paper, formula of its parameters, each key with a comment
  fieldctr explain trainer.patience     a key: default, range, comment
  fieldctr explain model.top_k          of every option of the group that has it
  fieldctr list                         the groups and their options"""


def main(*arguments: str) -> None:
    """Print what the configuration says of each word."""
    if not arguments or {"--help", "-h"} & {*arguments}:
        print(USAGE)
        return
    words, own = without_own(arguments)
    print("\n\n".join("\n".join(explained(word, own)) for word in words))


def explained(word: str, own: str | Path | None = None) -> Iterator[str]:
    """The lines on an option or a key; UserError where it is neither."""
    group, equals, option = word.partition("=")
    if equals and group in groups():
        yield from _option(group, option, own)
    elif found := keys_called(word.partition("=")[0], own):
        yield from dict.fromkeys(text for texts in found.values() for text in texts)
    else:
        homes = [f"{one}={word}" for one in groups() if word in options(one, own)]
        names = [option for one in groups() for option in options(one, own)]
        known = [*groups(), *names, *keys_called("", own)]
        hint = f"Write {' or '.join(homes)}. " if homes else nearest(word, known)
        also = f"fieldctr {word} --help explains the command" if word in COMMANDS else "All options: fieldctr list"
        raise UserError(f"nothing to explain called '{word}'. {hint}{also}")


def _option(group: str, option: str, own: str | Path | None) -> Iterator[str]:
    path = chosen(group, option, own)
    yield f"{group}={option}    {path}"
    yield path.read_text(encoding="utf-8").rstrip()
    for base in bases(group, option, own):
        yield f"\nIt starts from {group}={base}:\n"
        yield from _option(group, base, own)


def keys_called(name: str, own: str | Path | None = None) -> dict[str, list[str]]:
    """The keys of this name that `fieldctr train` has, whatever is chosen, and what is said of each; all of ''."""
    taken = defaults_of("train")
    group = name.partition(".")[0]
    pairs = [(group, option) for option in options(group, own)] if group in taken else list(taken.items())
    found = [(key, {}) for key in root_keys("train")]
    found += [(key, targets(dict([pair]), own)) for pair in pairs for key in option_keys(*pair, own)]
    told: dict[str, list[str]] = {}
    for key, paths in found:
        if name in ("", key.name):
            told.setdefault(key.name, []).append("\n".join(lines([key], "train", paths)))
    return told
