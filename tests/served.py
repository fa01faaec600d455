"""The console script as a server of calls, one at a time: to import torch takes seconds, to fork nothing.

For each line of JSON on stdin the program forks a process that runs `fieldctr <arguments>` in <folder>, its stderr in
the file err.txt there. With a <signal> that process sends it to itself as <function>, MODULE:NAME, returns for the
<times>-th time. It prints the exit code, negative for a signal that ended the process.
"""

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from fieldctr.cli import main

IMPORTS = (
    "fieldctr.commands.launch",
    "fieldctr.commands.train",
    "fieldctr.commands.prepare",
    "fieldctr.analysis.plots",
)


def arm(number: int, function: str, times: int) -> None:
    module, _, name = function.partition(":")
    *path, name = name.split(".")
    home: Any = importlib.import_module(module)
    for part in path:
        home = getattr(home, part)
    original: Callable[..., Any] = getattr(home, name)
    calls = 0

    def armed(*given: Any, **named: Any) -> Any:
        nonlocal calls
        done = original(*given, **named)
        calls += 1
        if calls == times:
            os.kill(os.getpid(), number)
        return done

    setattr(home, name, armed)


def child(call: dict[str, Any]) -> None:
    os.chdir(call["folder"])
    with open("err.txt", "w") as err, open("out.txt", "w") as out:  # noqa: PTH123
        os.dup2(err.fileno(), 2)
        os.dup2(out.fileno(), 1)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
    if call["signal"]:
        arm(call["signal"], call["function"], call["times"])
    sys.argv = ["fieldctr", *call["arguments"]]
    try:
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def serve() -> None:
    for name in IMPORTS:
        importlib.import_module(name)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            child(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
