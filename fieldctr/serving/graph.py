"""The folded model as a graph without Python: torch.export's .pt2, that compiled by AOTInductor, or ONNX by torch's
dynamo exporter.
"""

import importlib
import logging
import re
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch._inductor import aoti_compile_and_package
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule
from torch.onnx import OnnxExporterError

from fieldctr.compiler import require_compiler
from fieldctr.errors import UserError
from fieldctr.inputs import Inputs

Format = Literal["pt2", "aoti", "onnx"]
FILES = {"pt2": "model.pt2", "aoti": "model.aoti.pt2", "onnx": "model.onnx"}
EXAMPLES = 7  # rows that the graph is traced with; any number can be scored


class Served(nn.Module):
    """A model with its fields' vectors inside: what it is given of a vector field is the id."""

    def __init__(self, model: nn.Module, vectors: Sequence[tuple[int, Tensor]]) -> None:
        super().__init__()
        self.model = model
        self.columns = [column for column, _ in vectors]
        for k, (_, numbers) in enumerate(vectors):
            self.register_buffer(f"vectors_{k}", numbers)

    def forward(self, ids: Tensor, values: Tensor | None = None) -> Tensor:
        """(B, S) ids, (B, N) values of numeric fields -> logit (B,)."""
        ids = ids.long()  # an index in ONNX may not be int32
        gathered = [self.get_buffer(f"vectors_{k}")[ids[:, column]] for k, column in enumerate(self.columns)]
        parts = [*([] if values is None else [values]), *gathered]
        return self.model(Inputs(ids, torch.cat(parts, dim=1) if parts else None)).logit


@contextmanager
def quiet() -> Generator[None]:
    """Without what the exporters warn and log of their own code, and of packages that are not used; errors stay."""
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def refuse_missing(kind: Format) -> None:
    """UserError where something is missing that the format needs: a package, a compiler."""
    if kind == "aoti":
        require_compiler("format=aoti", without="format=pt2")
    for package in ("onnx", "onnxscript", "onnxruntime") if kind == "onnx" else ():
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise UserError(
                f"format=onnx needs {package}: pip install 'fieldctr[onnx]'. format=pt2 needs torch alone"
            ) from error


def traced(served: Served, *, num_columns: int, num_numeric: int) -> ExportedProgram:
    """The graph of a model in the form that serves, for any number of rows; UserError for one that has no graph."""
    ids = torch.zeros(EXAMPLES, num_columns, dtype=torch.int32)
    arguments = (ids, torch.zeros(EXAMPLES, num_numeric)) if num_numeric else (ids,)
    any_rows = tuple({0: Dim.DYNAMIC} for _ in arguments)
    try:
        with quiet(), torch.no_grad(), redirect_stderr(StringIO()):
            # Strict tracing reads the model's Python: `len(emb)` in somebody's model would else become a constant.
            program = torch.export.export(served.eval(), arguments, dynamic_shapes=any_rows, strict=True)
    except TorchDynamoException as error:
        raise UserError(_untraceable(str(error))) from error
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, GraphModule) else ():
            node.meta.pop("stack_trace", None)  # with the paths of this machine
    return program


def _untraceable(said: str) -> str:
    """What torch says of a model that it cannot trace, with the innermost line of code that it names."""
    lines = re.findall(r'([^\s"]+\.py)(?:", line |:)(\d+),? in ', said)
    where = f" {lines[-1][0]}, line {lines[-1][1]}" if lines else " it"
    return (
        f"the model cannot be exported, because torch.export cannot trace{where}: {said.splitlines()[0].strip(' .')}. "
        "Expected operations on tensors alone, for any number of rows: torch.where in the place of a branch that "
        "depends on values, len(emb) in the place of a fixed number of rows, no files. Nothing was written"
    )


def searched(values: Tensor, wanted: Tensor) -> Tensor:
    """torch.searchsorted by halving, of which ONNX has all operations: ascending values (n,), wanted (B,) -> (B,)."""
    place, step = torch.zeros_like(wanted), 1 << len(values).bit_length()
    while step := step // 2:
        further = place + step
        before = values[(further - 1).clamp(max=len(values) - 1)] < wanted
        place = torch.where((further <= len(values)) & before, further, place)
    return place


IN_SIMPLER_OPERATIONS = {torch.ops.aten.searchsorted.Tensor: searched}


def write_graph(program: ExportedProgram, folder: Path, kind: Format) -> None:
    """Write the file of the format; UserError for a model with an operation that ONNX lacks."""
    with quiet(), torch.no_grad():
        if kind == "pt2":
            torch.export.save(program, folder / FILES[kind])
            return
        if kind == "aoti":
            logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # of CUDA, also when it is loaded
            aoti_compile_and_package(program, package_path=str(folder / FILES[kind]))
            return
        try:
            simple = program.run_decompositions(torch.export.default_decompositions() | IN_SIMPLER_OPERATIONS)
            made = torch.onnx.export(simple, (), dynamo=True, verbose=False)
        except OnnxExporterError as error:
            lacks = re.search(r"No ONNX function found for <OpOverload\(op='([\w.]+)'", str(error))
            why = f" {lacks[1]}" if lacks else ""
            raise UserError(f"format=onnx: the model has an operation{why} that ONNX lacks. Take format=pt2") from error
        assert made is not None
        made.save(folder / FILES[kind])
