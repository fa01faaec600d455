"""The planted problem, one thread, and torch's switches put back after each test."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

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
    """planted.py, which is also a program: tests are no package, so it is loaded by path."""
    spec = importlib.util.spec_from_file_location("planted", Path(__file__).with_name("planted.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def runtime(planted: ModuleType, tmp_path: Path) -> Runtime:
    return planted.cpu_runtime(tmp_path)
