"""The one exception that is a message to the user, not a defect of the program, and what such a message says often."""

from collections.abc import Collection, Iterable
from itertools import islice

MOST_NAMED = 50  # names that a message lists


class UserError(Exception):
    """A mistake that the user can cure. Its text names the key, what was expected, what came, and the cure.

    The command line prints the text alone and exits with 2; anything else that is raised is a defect of the program
    and keeps its traceback.
    """


class LabelError(UserError):
    """Labels that cannot be: who knows the rule behind them adds it to the message."""


def nearest(word: object, known: Iterable[str]) -> str:
    """'Nearest: a, b. ' for an error message, or '' when nothing is near."""
    import difflib  # 20 ms, and only a mistake needs it

    close = difflib.get_close_matches(str(word), list(known), n=3, cutoff=0.5)
    return f"Nearest: {', '.join(close)}. " if close else ""


def unknown(kind: str, word: str, known: Collection[str]) -> str:
    """The message for a word that is not among the known ones."""
    return f"no {kind} '{word}'. {nearest(word, known)}{listing(known)}"


def listing(known: Collection[str]) -> str:
    """'All: a, b, c' for an error message; of very many names, such as those of columns, the first and the number."""
    if len(known) <= MOST_NAMED:
        return f"All: {', '.join(known)}"
    return f"There are {len(known):,}: {', '.join(islice(known, MOST_NAMED))}, ..."
