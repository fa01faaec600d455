"""How a call is written: `--model deepfm` and `model = deepfm` are answered with `model=deepfm`."""

from collections.abc import Collection, Iterator, Sequence

from fieldctr.catalog import groups, options
from fieldctr.commands.keys import root_keys
from fieldctr.errors import UserError, nearest


def refuse_spelling(arguments: Sequence[str], flags: Collection[str], with_value: Collection[str]) -> None:
    """UserError for a flag that there is not, and for a key or its value that stands alone.

    `flags` are those that the command has, `with_value` the ones that a value may follow.
    """
    for argument, behind in _words(arguments, with_value):
        name, equals, value = argument.partition("=")
        if argument.startswith("-") and name not in flags:
            raise UserError(_no_flag(argument, behind, flags))
        if argument.startswith("="):
            raise UserError(f"'{argument}' names no key: write KEY=VALUE, without blanks around =")
        if equals and not value and _is_value(behind):
            raise UserError(f"'{argument} {behind}': write {argument}{behind}, without blanks around =")
        if not equals and argument[0] not in "-~":
            if behind.startswith("="):
                joined = f"{argument}={behind.strip('=') or _third(arguments, argument) or 'VALUE'}"
                raise UserError(f"'{argument} {behind}': write {joined}, without blanks around =")
            if argument in groups() and behind in options(argument):
                raise UserError(f"'{argument} {behind}': write {argument}={behind}")
            if homes := [group for group in groups() if argument in options(group)]:
                raise UserError(f"'{argument}' stands alone: write {' or '.join(f'{one}={argument}' for one in homes)}")


def _words(arguments: Sequence[str], with_value: Collection[str]) -> Iterator[tuple[str, str]]:
    """The words that are no value of a flag, each with the one behind it."""
    around = ["", *arguments, ""]
    for last, argument, following in zip(around, arguments, around[2:], strict=False):
        if last not in with_value or argument.startswith("-") or "=" in argument:
            yield argument, following


def _is_value(word: str) -> bool:
    return bool(word) and "=" not in word and not word.startswith(("-", "~", "+"))


def _third(arguments: Sequence[str], first: str) -> str:
    """What follows `first` and a lone =."""
    place = list(arguments).index(first) + 2
    return arguments[place] if place < len(arguments) else ""


def _no_flag(argument: str, behind: str, flags: Collection[str]) -> str:
    name, _, value = argument.partition("=")
    value = value or (behind if _is_value(behind) else "")
    key = name.lstrip("-").replace("-", "_")
    if not value and key not in (*groups(), *(one.name for one in root_keys("train"))):
        near = nearest(name, [flag for flag in flags if flag.startswith("--")])
        return f"no flag '{name}'. {near}Most used: --multirun (-m), --cfg job, --config-dir DIR, --help"
    return f"no flag '{name}'. A key has no dashes: write {key}={value or 'VALUE'}"
