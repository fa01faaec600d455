"""Two ranks of a program, as torchrun starts them; and a fit that a signal ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from torch import distributed

from fieldctr import signals


def ranks_of(program: Path, folder: Path) -> tuple[list[int], list[str]]:
    """Exit codes and errors of two processes of `program`, which is given the folder."""
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    told = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    told |= {"TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    told["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    ranks = [
        subprocess.Popen(
            [sys.executable, program, folder],
            env=os.environ | told | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [rank.communicate()[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    return [rank.returncode for rank in ranks], said


def ended_by(fit: Callable[[], object], *, at: int | None) -> str:
    """What `fit` ended by, when this process gets SIGTERM at its `at`-th look for a signal; None: it gets none."""
    look, looks = signals.check, 0
    before = {number: signal.getsignal(number) for number in signals.SIGNALS}

    def check() -> None:
        nonlocal looks
        looks += 1
        if looks == at:
            os.kill(os.getpid(), signal.SIGTERM)
        look()

    signals.check = check
    try:
        with signals.handled():
            fit()
    except signals.Interrupted as stop:
        return str(stop)
    finally:
        signals.check = look
        for number, action in before.items():
            signal.signal(number, action)
        with signals.handled():  # forgets what it heard
            pass
    return "went on to the end"
