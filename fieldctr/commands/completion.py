"""`fieldctr completion bash|zsh|fish`: the lines that switch on tab completion; `query` answers the shell.

Differs: Hydra has completion of its own, but importing it takes 0.3 s for each press of the key. The YAML files say the
same in 0.1 s: groups are folders, options are files, keys are keys.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from fieldctr.catalog import FLAGS, groups, options, plural
from fieldctr.commands.keys import choices, defaults_of, option_keys, root_keys, targets
from fieldctr.commands.words import COMMANDS, HYDRA, INSPECTIONS, PARTS
from fieldctr.errors import UserError, unknown

BASH = """_fieldctr() {
  COMPREPLY=($(COMP_LINE="$COMP_LINE" COMP_POINT="$COMP_POINT" fieldctr completion query 2>/dev/null))
  case "${COMPREPLY[0]}" in *=|*.|*/) compopt -o nospace 2>/dev/null ;; esac
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
    own = own_folder(before)
    if before and before[-1] in FLAGS:
        return paths("", word, folders=True)
    if word.startswith("--config-dir="):
        return paths("--config-dir=", word.partition("=")[2], folders=True)
    command = before[0] if before else ""
    if not command:
        known = list(COMMANDS)
    elif command == "list":
        known = [plural(group) for group in groups()]
        known += [f"dataset={option}" for option in options("dataset", own)] if "models" in before else []
    elif command in ("explain", "check"):
        known = _explained(command, word, own)
    elif before == ["bench"]:
        known = list(PARTS["bench"])
    elif command in HYDRA:
        used = 2 if before[1:2] and before[1] in PARTS.get(command, ()) else 1
        given = dict(one.split("=", 1) for one in before[used:] if "=" in one)
        known = _overrides("_".join(before[:used]), given, word, own)
        if len(before) == 1:
            known += [*PARTS.get(command, ()), *(INSPECTIONS if command == "ssft" else ())]
    else:
        known = []
    if command in (*HYDRA, "list", "doctor", "explain", "check") and word.startswith("-"):
        known.append("--config-dir")
    return [candidate for candidate in known if candidate.startswith(word)]


def own_folder(words: list[str]) -> str | None:
    """The folder of the user's own YAML, if the words before name one that is there."""
    for flag, value in zip(words, [*words[1:], ""], strict=False):
        name, equals, folder = flag.partition("=")
        folder = folder if equals else value
        if name in FLAGS and Path(folder).is_dir():
            return folder
    return None


def paths(prefix: str, begun: str, *, folders: bool = False) -> list[str]:
    """Files and folders that the letters behind `prefix` can become; a folder ends in a slash."""
    place, _, start = begun.rpartition("/")
    folder = Path(f"{place}/" if place or begun.startswith("/") else ".")
    if not folder.is_dir():
        return []
    there = [path for path in folder.iterdir() if path.name.startswith(start) and not path.name.startswith(".")]
    stem = begun[: len(begun) - len(start)]
    return [f"{prefix}{stem}{path.name}{'/' * path.is_dir()}" for path in there if path.is_dir() or not folders]


def _explained(command: str, word: str, own: str | None) -> list[str]:
    group, equals, _ = word.partition("=")
    known = groups() if command == "explain" else ["model", "enhancer"]
    if equals:
        return [f"{group}={option}" for option in options(group, own)] if group in known else []
    return [f"{one}=" for one in known]


def _overrides(command: str, given: Mapping[str, str], word: str, own: str | None) -> list[str]:
    key, equals, value = word.partition("=")
    chosen = {**defaults_of(command), **given}
    if equals and key in chosen and key in groups():
        listed = value.rpartition(",")[0]  # a multirun's a,b,c
        return [f"{key}={listed}{',' if listed else ''}{option}" for option in options(key, own)]
    if equals:
        known = choices(key, command, targets(chosen, own))
        return [f"{key}={choice}" for choice in known] or paths(f"{key}=", value)
    keys = [*root_keys(command), *(key for pair in chosen.items() for key in option_keys(*pair, own))]
    leaves = dict.fromkeys(one.name for one in keys if one.default != "...")
    return [*(f"{group}=" for group in defaults_of(command)), *(f"{leaf}=" for leaf in leaves)]
