"""The house's rules that a machine can check: layers, homes of dependencies, sizes."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fieldctr"
BASE = """schema config artifacts checksums disk locks provenance signals trust compiler
    tracking errors cores launched catalog inputs memory processor ranking raw_files signatures targets"""
LAYERS = [
    set(BASE.split()),
    {"data", "nn", "runs"},
    {"models", "enhancers", "llm", "run_folders"},
    {"training", "analysis", "serving"},
    {"studies"},
    {"commands"},
    {"cli"},
    {"__main__", "__init__"},
]
HOMES = {
    "polars": {"data", "analysis"},
    "ray": {"data", "studies"},
    "torchrec": {"training"},
    "fbgemm_gpu": {"training"},
    "optuna": {"studies"},
    "submitit": {"studies"},
    "transformers": {"llm"},
    "peft": {"llm"},
    "wandb": {"tracking"},
    "matplotlib": {"analysis"},
    "jinja2": {"analysis"},
    "hydra": {"cli", "config", "commands"},
    "omegaconf": {"config", "commands"},
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def layer(name: str) -> int:
    return next(level for level, rooms in enumerate(LAYERS) if name in rooms)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_lower_layers_or_its_own_room(path: Path) -> None:
    for name in imports(path):
        if name.startswith("fieldctr."):
            other = name.split(".")[1]
            below = layer(other) < layer(room(path)) or other == room(path) or layer(room(path)) == layer(other) == 0
            assert below, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_dependency_has_one_home(path: Path) -> None:
    for name in imports(path):
        assert room(path) in HOMES.get(name.split(".")[0], {room(path)}), f"{path.name} imports {name}"


def test_no_module_outgrows_its_room() -> None:
    sizes = {path: sum(1 for line in path.read_text(encoding="utf-8").splitlines() if line.strip()) for path in MODULES}
    assert max(sizes.values()) <= 350, max(sizes, key=lambda path: sizes[path])


LEANING = re.compile(
    r"(The same (for|where|with|as|without|of|to|in|part|many)\b|Those |That of|Its [^,]*$|Both\.|Undo it)"
)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_docstring_makes_sense_without_its_neighbour(path: Path) -> None:
    """help() and an editor show one at a time."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            first = (ast.get_docstring(node) or "").partition("\n")[0]
            assert not LEANING.match(first), f"{node.name}: {first}"
