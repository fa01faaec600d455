"""The planted problem, one thread, and torch's switches put back after each test."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from by_path import loaded

from fieldctr.training.runtime import Runtime


@pytest.fixture(autouse=True)
def _one_thread_and_the_old_switches() -> Iterator[None]:
    torch.set_num_threads(1)
    matmul, deterministic = torch.get_float32_matmul_precision(), torch.get_deterministic_debug_mode()
    yield
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision(matmul)
    torch.set_deterministic_debug_mode(deterministic)


@pytest.fixture(scope="session")
def planted() -> ModuleType:
    """planted.py, which is also a program."""
    return loaded(Path(__file__).with_name("planted.py"))


@pytest.fixture
def runtime(planted: ModuleType, tmp_path: Path) -> Runtime:
    return planted.cpu_runtime(tmp_path)
