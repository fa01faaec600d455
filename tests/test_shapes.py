"""Letters of shapes in comments and docstrings are those of the legend in models/README.md, with one meaning each."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fieldctr"
LEGEND = (PACKAGE / "models" / "README.md").read_text(encoding="utf-8").partition("## Shapes")[2]
LETTERS = {letter for cell in re.findall(r"\| ([A-Z](?:, [A-Z])*) (?=\|)", LEGEND) for letter in cell.split(", ")}
OF_MODELS = set("AHKLMQTUXY")  # what no table has
SIZE = r"(?:1 or )?(?:[a-z_]+|\d?[A-Z]{1,2}|\d+)(?:(?: [+*/-] | |[+*/-])(?:[a-z_]+|\d?[A-Z]{1,2}|\d+))*"
SHAPE = re.compile(rf"\((?:{SIZE},|{SIZE}(?:, {SIZE})+)\)")  # (B, F, D), (n,), (T, B, T D + 2 D), (1 or H, T, T)
BARE = re.compile(r"(?<![\w,(])\w[\w+*/]*(?:,[\w+*/]+)+(?![\w,])")  # B,F,D behind a line of code
LETTER = re.compile(r"(?<![A-Za-z_])[A-Z]{1,2}(?![A-Za-z_])")
MODULES = sorted(PACKAGE.rglob("*.py"))


def shapes(path: Path) -> Iterator[str]:
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield from SHAPE.findall(ast.get_docstring(node) or "")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield from SHAPE.findall(token.string)
            yield from BARE.findall(token.string)


def letters(path: Path) -> set[str]:
    return {letter for shape in shapes(path) for word in LETTER.findall(shape) for letter in word}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_letters_of_shapes_are_in_the_legend_and_mean_there_what_they_mean_here(path: Path) -> None:
    assert letters(path) <= LETTERS
    room = path.relative_to(PACKAGE).parts
    if room[0] == "data" or (room[0] == "analysis" and "parity" not in room):
        assert not letters(path) & OF_MODELS


def test_the_legend_holds_no_letter_that_nobody_uses() -> None:
    assert set().union(*map(letters, MODULES)) == LETTERS
