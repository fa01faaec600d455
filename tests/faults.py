"""A server of calls of fieldctr with faults at file operations; each call in a child that has everything imported.

For each JSON line {"arguments", "folder", "environment", "say", "told", "status", "fault"} on stdin the program forks a
child that runs the call in `folder`, its output in the file `say`, that to stderr in `told` unless it is null, and at
its end its exit status in the file `status`. It takes the next line at once: calls may run beside each other.
`environment` is null for that of the server, where no picture is drawn, and `fault` is null, or
{"kind": "copy", "to": DIR}       before each operation that changes the folder, copy it to DIR/<number>, unless the
                                  last copy would be the same: what a kill at this moment would leave
{"kind": "kill", "at": N}         the N-th operation is not reached
{"kind": ERRNO, "at": N}          the N-th operation, and every later one that writes, fails with this error
{"kind": "limit", "bytes": N}     no file can grow beyond so many bytes, whoever writes it
{"kind": "signal", "number": N, "function": F, "times": T}
                                  the call gets the signal as the function, MODULE:NAME, returns for the T-th time
{"kind": "pause", "at": N, "reached": FILE, "until": FILE}
                                  before the N-th operation the file `reached` is made, and `until` waited for
With "on": TEXT only the operations count whose arguments have this text; with "reads": true opening for reading, too.
Operations are what Python's audit hooks tell of, by any code: opening for writing, renaming, removing, making a folder.
"""

import errno
import functools
import gc
import importlib
import itertools
import json
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
COMMANDS = ("launch", "prepare", "train", "predict", "ssft", "texts", "evaluate", "verify", "clean")
PRELOADED = (  # nothing of which may start threads, which a fork would lose
    *(f"fieldctr.commands.{name}" for name in COMMANDS),
    *("fieldctr.analysis.plots", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg"),
    *("peft", "tokenizers", "transformers.models.llama.modeling_llama", "transformers.modeling_utils"),
)
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree")

Act = Callable[[str, Any], None]  # event, and its first argument, mostly a path


def changes(event: str, arguments: tuple[Any, ...], folder: str) -> bool:
    """Whether an audited event changes something below `folder`."""
    if event != "open":
        return event in CHANGES and _below(arguments[0], folder)
    path, mode, flags = arguments
    opened = isinstance(path, str | bytes | os.PathLike) and _below(path, folder)
    return bool(opened) and bool((isinstance(mode, str) and set(mode) & set("wax+")) or (flags or 0) & WRITES)


def _below(path: Any, folder: str) -> bool:
    return str(Path(os.fsdecode(path)).absolute()).startswith(folder)


def copied(folder: Path, to: Path) -> Act:
    """Copies `folder` at each operation that finds it changed."""
    last: list[Any] = [None]
    within = [False]

    def act(event: str, path: Any) -> None:
        if within[0]:
            return
        within[0] = True
        state = sorted((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*"))
        if state != last[0]:
            last[0] = state
            shutil.copytree(folder, to / f"{len(list(to.iterdir())):04}", symlinks=True)
        within[0] = False

    return act


def failing(kind: str, at: int) -> Act:
    """Ends the process, or fails, from the `at`-th operation on; what only removes goes on working on a full disk."""
    number = [0]

    def act(event: str, path: Any) -> None:
        number[0] += 1
        if number[0] < at:
            return
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if event in ("open", "os.mkdir", "os.link"):
            code = getattr(errno, kind)
            raise OSError(code, os.strerror(code), os.fsdecode(path))

    return act


def waiting(at: int, reached: Path, until: Path) -> Act:
    """Waits once, so that a test can do something at this moment."""
    number = [0]

    def act(event: str, path: Any) -> None:
        number[0] += 1
        if number[0] == at:
            reached.touch()
            while not until.exists():
                time.sleep(0.01)

    return act


def fault_of(fault: dict[str, Any], folder: Path) -> Act:
    """What to do at each operation that counts."""
    if fault["kind"] == "copy":
        return copied(folder, Path(fault["to"]))
    if fault["kind"] == "pause":
        return waiting(fault["at"], Path(fault["reached"]), Path(fault["until"]))
    return failing(fault["kind"], fault["at"])


def counts(event: str, arguments: tuple[Any, ...], root: str, fault: dict[str, Any]) -> bool:
    """Whether an audited event is an operation that counts."""
    if event != "open" and event not in CHANGES:
        return False
    if not changes(event, arguments, root):
        named = isinstance(arguments[0], str | bytes | os.PathLike)
        if not (fault.get("reads") and event == "open" and named and _below(arguments[0], root)):
            return False
    return fault.get("on", "") in " ".join(map(str, arguments))


def arm(number: int, function: str, times: int) -> None:
    """Send this process a signal as the function returns for so many times."""
    module, _, path = function.partition(":")
    *homes, name = path.split(".")
    home: Any = functools.reduce(getattr, homes, importlib.import_module(module))
    original, calls = getattr(home, name), itertools.count(1)

    def armed(*given: Any, **named: Any) -> Any:
        done = original(*given, **named)
        if next(calls) == times:
            os.kill(os.getpid(), number)
        return done

    setattr(home, name, armed)


def outlined(figure: Any, path: Path, **_: Any) -> None:
    """Writes the numbers that a picture shows in its place: drawing takes half of a call's time."""
    shown = [
        [axes.get_title(), *(line.get_xydata().tolist() for line in axes.lines), *(i.get_array() for i in axes.images)]
        for axes in figure.axes
    ]
    path.write_text(repr(shown))


def child(request: dict[str, Any], out: int) -> None:
    """The call itself, which says what it says to `out`; does not return."""
    folder, fault = Path(request["folder"]), request["fault"]
    os.chdir(folder)
    os.dup2(out, 1)
    os.dup2(os.open(request["told"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if request["told"] else out, 2)
    if request["environment"]:
        os.environ.clear()
        os.environ.update(request["environment"])
        sys.path[:0] = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    else:
        importlib.import_module("matplotlib.figure").Figure.savefig = outlined
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
    kind = fault["kind"] if fault else ""
    if fault and kind == "signal":
        arm(fault["number"], fault["function"], fault["times"])
    elif fault and kind == "limit":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault["bytes"], resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    elif fault:
        act, root = fault_of(fault, folder), str(folder)

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if counts(event, arguments, root, fault):
                act(event, arguments[0])

        sys.addaudithook(hook)
    sys.argv = ["fieldctr", *request["arguments"]]
    code = 1
    try:
        importlib.import_module("fieldctr.cli").main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    for name in PRELOADED:
        importlib.import_module(name)
    importlib.import_module("hydra.core.plugins").Plugins.instance()
    # A second of each call in new outputs: tests/training/test_runtime.py measures.
    importlib.import_module("fieldctr.training.runtime").measured_matmul = lambda: "mkl"
    importlib.import_module("fieldctr.commands.launch").compose("train")  # the first one takes five times as long
    gc.freeze()  # else each child looks through all that is imported for garbage
    gc.set_threshold(50_000, 20, 20)
    for line in sys.stdin:
        request = json.loads(line)
        if os.fork() == 0:  # who waits for the call
            heard, out = os.pipe()  # no limit of a file's size concerns it
            process = os.fork()
            if process == 0:
                child(request, out)
            os.close(out)
            with os.fdopen(heard, "rb", 0) as file, Path(request["say"]).open("wb", 0) as said:
                while words := file.read(1 << 16):  # a test may wait for them
                    said.write(words)
            status, path = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), Path(request["status"])
            path.with_suffix(".half").write_text(str(status))
            path.with_suffix(".half").rename(path)
            os._exit(0)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
