"""What a worker does in tests/studies/test_engines.py: no torch, so that a process starts at once."""

import os
import signal
import time

from fieldctr import signals
from fieldctr.studies.jobs import Job, Status


def work(job: Job) -> tuple[Status, str]:
    """Do what the job's words say, once, and leave a line that it was here."""
    job.folder.mkdir(parents=True, exist_ok=True)
    with (job.folder / "begun").open("a") as file:
        file.write(f"{os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES', '-')}\n")
    word = job.words[0]
    first = len((job.folder / "begun").read_text().splitlines()) == 1
    if word == "fail":
        return "failed", "as asked"
    if word == "raise":
        raise RuntimeError("a defect")
    if word == "die" or (word == "die_once" and first):
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "exit":
        os._exit(3)
    if word == "long":
        try:
            while True:
                time.sleep(0.01)
        except signals.Interrupted:
            (job.folder / "checkpoint").touch()
            raise
    print(f"said by {job.name}")
    return "done", ""
