"""Code of a user's own that looks at the test split during a training; tests/data/test_test_reads.py trusts it."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torchmetrics import Metric

TABLE = ""  # the prepared table, set by the test
WAYS: dict[str, Callable[[Path], object]] = {
    "np.load": np.load,
    "memory map": lambda path: np.load(path, mmap_mode="r"),
    "fromfile": lambda path: np.fromfile(path, np.uint8),
    "open": lambda path: path.open("rb").read(1),
    "os.open": lambda path: os.open(path, os.O_RDONLY),
    "copy": lambda path: shutil.copyfile(path, tempfile.mktemp()),
    "hard link": lambda path: os.link(path, f"{path.parent}-link"),
    "symbolic link": lambda path: Path(tempfile.mktemp()).symlink_to(path),
    "another name": lambda path: path.parent.parent.joinpath("x", "..", path.parent.name, path.name).read_bytes(),
}


class Cheat(Metric):
    """A metric of valid that opens the labels of test."""

    way = "open"

    def update(self, *_: torch.Tensor) -> None:
        path = Path(TABLE) / "test.label.npy"
        assert path.exists()
        WAYS[self.way](path)

    def compute(self) -> torch.Tensor:
        return torch.zeros(())
