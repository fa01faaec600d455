"""What computes: model.onnx by onnxruntime, or model.pt2 by torch."""

import importlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

Graph = Callable[[np.ndarray, np.ndarray], np.ndarray]


def load_graph(folder: Path, threads: int) -> Graph:
    """What gives the logits (n,) of ids (n, columns) and values (n, fields)."""
    return _by_onnxruntime(folder, threads) if (folder / "model.onnx").exists() else _by_torch(folder, threads)


def _by_onnxruntime(folder: Path, threads: int) -> Graph:
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    taken = len(session.get_inputs())
    return lambda *arrays: np.asarray(
        session.run(None, dict(zip(("ids", "values")[:taken], arrays[:taken], strict=True)))[0]
    )


def _by_torch(folder: Path, threads: int) -> Graph:
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads)
    graph = torch.export.load(folder / "model.pt2")
    module, takes = graph.module(), len(graph.graph_signature.user_inputs)

    def run(*arrays: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(*map(torch.from_numpy, arrays[:takes])).numpy()

    return run
