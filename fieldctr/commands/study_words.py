"""The words of `fieldctr study` and `fieldctr search`: their own keys, and keys of `train`, which go to every run.

`dataset=coupon models=lr,fat optimizer.lr=0.01` become `datasets=[coupon] models=[lr,fat] words=['optimizer.lr=0.01']`.
"""

from collections.abc import Iterable
from typing import Any

import yaml

from fieldctr.catalog import conf_dir, groups
from fieldctr.errors import UserError, nearest

LISTS = ("datasets", "models", "seeds", "within", "metrics", "slices", "spaces")
ALWAYS_LISTS = ("within", "metrics", "slices")  # also where one is named
OPEN = ("over", "arms", "options", "scaling")  # mappings whose keys the user chooses
KEPT = ("hydra", "study", "tracker")  # groups of their own
WORDS = "words"
NAMED_LIKE_A_GROUP = {"study": "dataset", "search": "space"}  # Hydra takes such a key for a group: it gets an s


def own_words(command: str, arguments: Iterable[str]) -> list[str]:
    """The arguments as Hydra takes them for this command; a UserError names a key that neither it nor train has."""
    own, train = keys_of(command), {*keys_of("train"), *groups()}
    kept: list[str] = []
    passed: list[str] = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        root = key.lstrip("+~").partition(".")[0]
        if argument.startswith("-") or not (equals or key.startswith("~")):
            kept.append(argument)
        elif key == NAMED_LIKE_A_GROUP.get(command):
            kept.append(f"{key}s={as_list(value)}")
        elif root in own or root in KEPT:
            kept.append(_kept(key, value) if equals else argument)
        elif root in train:
            passed.append(argument)
        else:
            known = sorted({*own, *train})
            raise UserError(
                f"no key '{key}' of {command} or train. {nearest(root, known)}All of {command}: {', '.join(own)}"
            )
    return [*kept, *([f"{WORDS}={quoted_list(passed)}"] if passed else [])]


def keys_of(root: str) -> list[str]:
    """The keys at the root of a command's configuration, as its YAML and the one that all share have them."""
    paths = (conf_dir() / f"{name}.yaml" for name in (root, "base"))
    nodes: list[dict[str, Any]] = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths]
    return [key for node in nodes for key in node if key not in ("defaults", "hydra")]


def _kept(key: str, value: str) -> str:
    if key in LISTS:
        text = as_list(value)
        return f"{key}=[{text}]" if key in ALWAYS_LISTS and not text.startswith(("[", "null")) else f"{key}={text}"
    parts = key.lstrip("+").split(".")
    if set(parts[:-1]) & {*OPEN} or (key in OPEN and value != "null"):
        return f"++{'.'.join(parts)}={as_list(value) if parts[0] == 'over' else value}"
    return f"{key}={value}"


def as_list(value: str) -> str:
    """a,b as [a,b]; a list, a number or a name stay."""
    return f"[{value}]" if "," in value and not value.startswith(("[", "{", "'", '"')) else value


def quoted_list(words: Iterable[str]) -> str:
    """Words as a list in Hydra's grammar."""
    return "[" + ",".join("'" + word.replace("\\", "\\\\").replace("'", "\\'") + "'" for word in words) + "]"
