"""SIGTERM, SIGHUP and SIGINT end a command in order: the first one as an exception, a second one at once.

A fit puts the first one off to the end of its step, so that it leaves a checkpoint of that very step.
"""

import os
import re
import shlex
import signal
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, ClassVar

from fieldctr.launched import launched

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
# The same signal so soon after the first is its echo: `timeout` and a closed terminal signal a process and its group.
ECHO_S = 0.1
PLAIN = re.compile(r"[A-Za-z_./][\w./:@%-]*")  # what Hydra reads as it stands


class Interrupted(BaseException):
    """A signal asked the process to end. No Exception, lest what goes on after a failure goes on after this."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(signum).name}")
        self.signum = signum
        self.kept = ""  # what the user finds
        self.go_on: dict[str, str] = {}  # keys that their call needs, to go on there

    def sentence(self, arguments: Iterable[str]) -> str:
        """What was stopped, what is kept, and how the call with these arguments goes on."""
        own = [argument for argument in arguments if argument.partition("=")[0].lstrip("+") not in self.go_on]
        call = shlex.join([*launched().command(), *own, *(f"{key}={_value(text)}" for key, text in self.go_on.items())])
        name, kept = signal.Signals(self.signum).name, self.kept or "; nothing is half-written"
        return f"stopped by {name}{kept}. {'Go on' if self.kept else 'Again'}: {call}"


class _Signalled:
    """What is known of signals in this process."""

    number: int | None = None  # the first one's
    at = 0.0  # when it came
    deferred = False
    before: ClassVar[dict[int, Any]] = {}  # the actions of those that are handled


def check() -> None:
    """Raise what was put off."""
    if _Signalled.number is not None:
        raise Interrupted(_Signalled.number)


@contextmanager
def deferred() -> Generator[None]:
    """Inside, a signal waits for a `check`, and at the latest for the end."""
    _Signalled.deferred = True
    try:
        yield
    finally:
        _Signalled.deferred = False
        check()


class handled:  # noqa: N801  used as a function
    """A context in which the signals raise Interrupted; those that are ignored, under nohup or in a script, stay so.

    What a library makes of it, KeyboardInterrupt or an error of its own, leaves as Interrupted all the same.
    """

    def __enter__(self) -> None:
        _Signalled.number = None
        main = threading.current_thread() is threading.main_thread()
        before = {number: signal.getsignal(number) for number in SIGNALS if main}
        _Signalled.before = {number: old for number, old in before.items() if old not in (signal.SIG_IGN, None)}
        retake()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stop = interruption(error)
        if stop is not None and stop is not error:
            raise stop from error
        if stop is None:
            for number, old in _Signalled.before.items():
                signal.signal(number, old)
            _Signalled.before = {}


def retake() -> None:
    """Take the signals of `handled` back from a library that took them for itself."""
    for number in _Signalled.before:
        signal.signal(number, _receive)


def interruption(error: BaseException | None) -> Interrupted | None:
    """The interruption that an error is, or that it came from: behind a closed terminal every message is an error."""
    if error is None or isinstance(error, Interrupted):
        return error
    number = signal.SIGINT if isinstance(error, KeyboardInterrupt) else _Signalled.number
    return Interrupted(number) if number is not None else None


def _receive(number: int, frame: FrameType | None) -> None:
    """Python's handler. It ends the process itself, because the default action of a signal spares process 1."""
    if _Signalled.number is None:
        _Signalled.number, _Signalled.at = number, time.monotonic()
        if not _Signalled.deferred:
            raise Interrupted(number)
    elif number != _Signalled.number or time.monotonic() - _Signalled.at > ECHO_S:
        try:
            os.write(2, f"fieldctr: ended at once by {signal.Signals(number).name}, the second signal\n".encode())
        finally:
            os._exit(128 + number)


def _value(text: str) -> str:
    """A text as the value of a key on Hydra's command line."""
    quoted = text.replace("'", "\\'")
    return text if PLAIN.fullmatch(text) else f"'{quoted}'"
