"""`fieldctr completion bash|zsh|fish`: the lines that switch on tab completion; `query` answers the shell.

Differs: Hydra has completion of its own, but importing it takes 0.3 s for each press of the key. The YAML files say the
same in 0.1 s: groups are folders, options are files, keys are keys.
"""

import os
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fieldctr.catalog import conf_dir, groups, options
from fieldctr.commands.words import COMMANDS, HYDRA, PARTS
from fieldctr.errors import UserError, unknown

BASH = """_fieldctr() {
  COMPREPLY=($(COMP_LINE="$COMP_LINE" COMP_POINT="$COMP_POINT" fieldctr completion query 2>/dev/null))
  case "${COMPREPLY[0]}" in *=|*.) compopt -o nospace 2>/dev/null ;; esac
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o default -F _fieldctr fieldctr"""
SCRIPTS = {
    "bash": BASH,
    "zsh": f"autoload -Uz compinit bashcompinit && compinit && bashcompinit\n{BASH}",
    "fish": "complete -c fieldctr -f -a '(COMP_LINE=(commandline -cp) fieldctr completion query)'",
}


def main(shell: str = "--help", *_: str) -> None:
    """Print a shell's script, or for `query` the words that can follow COMP_LINE up to COMP_POINT."""
    if shell == "query":
        line = os.environ.get("COMP_LINE", "")[: int(os.environ.get("COMP_POINT", "100000"))]
        print("\n".join(sorted(completions(line.split()[1:] + ([""] if line.endswith(" ") else [])))))
    elif shell in SCRIPTS:
        print(SCRIPTS[shell])
    elif shell in ("--help", "-h"):
        print('usage: eval "$(fieldctr completion bash)"    (or zsh; fish: fieldctr completion fish | source)')
    else:
        raise UserError(unknown("shell", shell, tuple(SCRIPTS)))


def completions(words: list[str]) -> list[str]:
    """What the last of the words after `fieldctr` can become."""
    *before, word = words or [""]
    if not before:
        known = list(COMMANDS)
    elif before[0] == "list":
        known = [f"{group}s" for group in groups()]
        known += [f"dataset={option}" for option in options("dataset")] if "models" in before else []
    elif before == ["bench"]:
        known = list(PARTS["bench"])
    elif before[0] in HYDRA:
        used = 2 if before[1:2] and before[1] in PARTS.get(before[0], ()) else 1
        known = _overrides("_".join(before[:used]), dict(w.split("=", 1) for w in before[used:] if "=" in w), word)
        known += PARTS.get(before[0], ()) if len(before) == 1 else ()
    else:
        known = []
    return [candidate for candidate in known if candidate.startswith(word)]


def _overrides(command: str, given: Mapping[str, str], word: str) -> list[str]:
    key, equals, value = word.partition("=")
    chosen = {**_defaults(command), **given}
    if equals and key in chosen and key in groups():
        listed = value.rpartition(",")[0]  # a multirun's a,b,c
        return [f"{key}={listed}{',' if listed else ''}{option}" for option in options(key)]
    if equals:
        return [f"{key}={choice}" for choice in _choices(key)]
    return [f"{group}=" for group in _defaults(command)] + [f"{leaf}=" for leaf in _keys(command, chosen)]


def _defaults(command: str) -> dict[str, str]:
    """The groups of a command's defaults list with the option that it takes."""
    entries = [item for item in _yaml(command).get("defaults", []) if isinstance(item, dict)]
    pairs = {key.removeprefix("optional "): value for item in entries for key, value in item.items()}
    return {group: str(option) for group, option in pairs.items() if group in groups()}


def _keys(command: str, chosen: Mapping[str, str]) -> list[str]:
    root = {key: value for key, value in _yaml(command).items() if key not in ("defaults", "hydra")}
    nodes = [f"{group}.{key}" for group, option in chosen.items() for key in _node_keys(group, option)]
    keys = [*_flat({**_yaml("base"), **root}), *nodes]
    return [key for key in keys if not key.startswith("hydra.")]


def _node_keys(group: str, option: str) -> list[str]:
    """The keys of an option's node, and of those in its group that it starts from."""
    own = _yaml(f"{group}/{option}")
    entries = [entry.partition("@")[0] for entry in own.pop("defaults", []) if isinstance(entry, str)]
    bases = [entry for entry in entries if entry in options(group)]
    node = own.get(group, own)  # one that sets root keys too has its own below the group's name
    return list(dict.fromkeys([key for base in bases for key in _node_keys(group, base)] + _flat(node)))


def _flat(node: Mapping[str, Any]) -> list[str]:
    from fieldctr.config import flat

    return list(flat(node))


def _choices(key: str) -> list[str]:
    """The allowed values of a closed key, such as trainer.precision."""
    from fieldctr import config

    node, _, leaf = key.rpartition(".")
    kind = getattr(config, f"{node.capitalize()}Config", config.TrainConfig)
    hint = get_type_hints(kind).get(leaf)
    if get_origin(hint) is Literal:
        return [str(choice) for choice in get_args(hint)]
    return ["true", "false"] if hint is bool else []


def _yaml(name: str) -> dict[str, Any]:
    import yaml

    path = conf_dir() / f"{name}.yaml"
    return (yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None) or {}
