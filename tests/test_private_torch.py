"""The parts of torch that it promises nobody: which ones are used, and that they are still what they were.

An upgrade that takes one away fails here first, in one place.
"""

import ast
import importlib
import re
from pathlib import Path

import pytest
import torch

PACKAGE = Path(__file__).parents[1] / "fieldctr"
PRIVATE = {
    "torch._dynamo": "forget what was compiled for an earlier model",
    "torch._foreach_lerp_": "the moving average of all weights at once",
    "torch._foreach_mul_": "the gradient clip of all weights at once",
    "torch._foreach_norm": "the norm of all gradients at once",
    "torch._fused_adam_": "one pass over weights, gradients and moments",
    "torch._inductor": "whether there is a compiler, and its cache",
    "torch._subclasses.fake_tensor": "a model's size without its memory",
    "torch.ops.aten._softmax_backward_data": "attention that is computed again",
    "torch.utils._python_dispatch": "counting operations",
    "torch.utils._pytree": "the tensors among an operation's results",
}
OF_TENSORS = {"_indices", "_values", "_cdata"}  # of a sparse gradient that is not coalesced; of a storage
OPERATIONS = {
    "_fused_adam_": "self grads exp_avgs exp_avg_sqs max_exp_avg_sqs state_steps lr beta1 beta2 weight_decay eps "
    "amsgrad maximize grad_scale found_inf",
    "_softmax_backward_data": "grad_output output dim input_dtype",
    "_foreach_mul_": "self scalar",
    "_foreach_norm": "self ord dtype",
}


@pytest.fixture(scope="module")
def names() -> set[str]:
    """What modules import from torch, and each attribute, such as torch.nn.Module or x.shape."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                found.add(str(node.module))
            elif isinstance(node, ast.Attribute):
                found.add(ast.unparse(node))
    return found


def test_the_private_parts_in_use_are_those_listed_here(names: set[str]) -> None:
    used = {name for name in names if re.match(r"torch\.([a-z_]+\.)*_[a-z]", name)}
    listed = {name: [known for known in PRIVATE if f"{name}.".startswith(f"{known}.")] for name in used}
    assert {name for name, by in listed.items() if not by} == set()
    assert {known for by in listed.values() for known in by} == set(PRIVATE)


def test_the_private_methods_of_tensors_in_use_are_those_listed_here(names: set[str]) -> None:
    own = {name for name in names if not name.startswith("torch.")}
    called = {name.rpartition(".")[2] for name in own if re.search(r"\._[a-z]\w+$", name)}
    assert {name for name in called if hasattr(torch.Tensor, name)} == OF_TENSORS


@pytest.mark.parametrize("name", sorted(set(PRIVATE) - {"torch._dynamo", "torch._inductor"}))  # 3 s each to import
def test_a_private_part_is_there(name: str) -> None:
    module, _, leaf = name.rpartition(".")
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        holder = torch.ops.aten if module == "torch.ops.aten" else importlib.import_module(module)
        assert hasattr(holder, leaf)


@pytest.mark.slow
def test_the_compiler_s_parts_are_there() -> None:
    from torch._inductor import config, cpp_builder, exc

    assert callable(torch._dynamo.reset)
    assert config
    assert cpp_builder
    assert exc


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_private_operation_takes_what_it_took(name: str) -> None:
    packet = getattr(torch.ops.aten, name)
    signatures = [
        " ".join(argument.name for argument in getattr(packet, each)._schema.arguments) for each in packet.overloads()
    ]
    assert OPERATIONS[name] in signatures


def test_the_raw_rows_of_a_sparse_gradient_are_as_they_came() -> None:
    rows = torch.tensor([[3, 1, 3]])
    gradient = torch.sparse_coo_tensor(rows, torch.ones(3, 2), (5, 2), check_invariants=True)
    assert torch.equal(gradient._indices(), rows)
    assert torch.equal(gradient._values(), torch.ones(3, 2))


def test_memory_can_be_left_unfilled() -> None:
    assert isinstance(torch.utils.deterministic.fill_uninitialized_memory, bool)
