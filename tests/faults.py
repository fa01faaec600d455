"""A server of calls of fieldctr with faults at file operations; each call in a child that has everything imported.

For each JSON line {"arguments", "folder", "say", "fault"} on stdin the program forks a child that runs the call in
`folder`, its output in the file `say`, and prints its exit status. `fault` is null, or
{"kind": "copy", "to": DIR}       before each operation that changes the folder, copy it to DIR/<number>, unless the
                                  last copy would be the same: what a kill at this moment would leave
{"kind": "kill", "at": N}         the N-th operation is not reached
{"kind": ERRNO, "at": N}          the N-th operation, and every later one that writes, fails with this error
{"kind": "limit", "bytes": N}     no file can grow beyond so many bytes, whoever writes it
Operations are what Python's audit hooks tell of, by any code: opening for writing, renaming, removing, making a folder.
"""

import errno
import importlib
import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
COMMANDS = ("launch", "prepare", "train", "predict", "ssft", "evaluate", "verify", "clean")
PRELOADED = (  # nothing of which may start threads, which a fork would lose
    *(f"fieldctr.commands.{name}" for name in COMMANDS),
    *("fieldctr.analysis.plots", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg"),
    *("peft", "tokenizers", "transformers.models.llama.modeling_llama", "transformers.modeling_utils"),
)
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree")


def changes(event: str, arguments: tuple[Any, ...], folder: str) -> bool:
    """Whether an audited event changes something below `folder`."""
    if event != "open":
        return event in CHANGES and _below(arguments[0], folder)
    path, mode, flags = arguments
    opened = isinstance(path, str | bytes | os.PathLike) and _below(path, folder)
    return bool(opened) and bool((isinstance(mode, str) and set(mode) & set("wax+")) or (flags or 0) & WRITES)


def _below(path: Any, folder: str) -> bool:
    return str(Path(os.fsdecode(path)).absolute()).startswith(folder)


def copied(folder: Path, to: Path) -> Callable[[str, Any], None]:
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


def failing(kind: str, at: int) -> Callable[[str, Any], None]:
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


def child(arguments: list[str], folder: Path, out: int, fault: dict[str, Any] | None) -> None:
    """The call itself, which says what it says to `out`; does not return."""
    os.chdir(folder)
    os.dup2(out, 1)
    os.dup2(out, 2)
    if fault and fault["kind"] == "limit":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault["bytes"], resource.RLIM_INFINITY))
    elif fault:
        act = copied(folder, Path(fault["to"])) if fault["kind"] == "copy" else failing(fault["kind"], fault["at"])
        root = str(folder)

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if (event == "open" or event in CHANGES) and changes(event, arguments, root):
                act(event, arguments[0])

        sys.addaudithook(hook)
    sys.argv = ["fieldctr", *arguments]
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
    for line in sys.stdin:
        request = json.loads(line)
        heard, out = os.pipe()  # no limit of a file's size concerns it
        process = os.fork()
        if process == 0:
            child(request["arguments"], Path(request["folder"]), out, request["fault"])
        os.close(out)
        with os.fdopen(heard, "rb") as file:
            Path(request["say"]).write_bytes(file.read())
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
