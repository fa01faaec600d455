"""Draw the table "The walk" of README.md as .github/walk-light.svg and .github/walk-dark.svg.

    python scripts/draw_walk.py

One box a row: the step, what it gives, and below it what it leaves on disk. A row whose step feeds `build` from aside
(the language model's) hangs below it. The words are the table's; only widths and colours are said here.
"""

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

ROOT = Path(__file__).parents[1]
WIDTHS = {"read": 92, "encode": 92, "load": 92, "build": 300, "fit": 92, "evaluate": 92, "record": 92}
ASIDE, INTO = "read field names", "build"
GAP, TOP, HEIGHT, INNER = 20, 10, 92, 28
SANS, MONO = (
    "ui-sans-serif, system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif",
    "ui-monospace, 'DejaVu Sans Mono', monospace",
)


class Step(NamedTuple):
    """A row of the table."""

    name: str
    gives: str
    leaves: str


class Ink(NamedTuple):
    """Colours of GitHub's pages."""

    text: str
    muted: str
    fill: str
    line: str
    accent: str


INKS = {
    "light": Ink("#1f2328", "#59636e", "#f6f8fa", "#c4ccd4", "#0969da"),
    "dark": Ink("#f0f6fc", "#9198a1", "#151b23", "#4a525c", "#4493f8"),
}


def main() -> None:
    steps = walk((ROOT / "README.md").read_text(encoding="utf-8"))
    for name, ink in INKS.items():
        path = ROOT / f".github/walk-{name}.svg"
        path.write_text(picture(steps, ink), encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")


def walk(readme: str) -> dict[str, Step]:
    """The rows of the table by their step."""
    table = readme.partition("\n## The walk\n")[2].partition("\n## ")[0]
    rows = [
        [cell.strip().replace("`", "") for cell in line.split("|")[1:-1]] for line in re.findall(r"^\|.*", table, re.M)
    ]
    return {step: Step(step, gives, leaves) for step, _, gives, leaves in rows[2:]}


def picture(steps: dict[str, Step], ink: Ink) -> str:
    """The whole drawing as SVG."""
    width, height = sum(WIDTHS.values()) + GAP * (len(WIDTHS) - 1) + 20, 216
    parts, left = [], 10
    for name, wide in WIDTHS.items():
        if parts:
            parts.append(arrow(left - GAP, TOP + HEIGHT / 2, left, TOP + HEIGHT / 2, ink))
        chained = steps[name].gives.split(" -> ")
        parts += [
            *box(steps[name], left, TOP, wide, HEIGHT, ink, body=len(chained) == 1),
            *disk(steps[name], left, ink),
        ]
        if len(chained) > 1:
            parts += chain(chained, left, wide, ink)
        if name == INTO:
            top = TOP + HEIGHT + 36
            parts += box(steps[ASIDE], left, top, wide, 46, ink, body=True)
            parts += [arrow(left + wide - 50, top, left + wide - 50, TOP + HEIGHT, ink)]
            parts += text([steps[ASIDE].leaves], left, top + 62, ink.muted, size=10, font=MONO)
        left += wide + GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    return "\n".join([head, *parts, "</svg>", ""])


def box(step: Step, x: float, y: float, width: float, height: float, ink: Ink, *, body: bool) -> Iterator[str]:
    """A step with its name and, where `body` says so, what it gives."""
    yield frame(x, y, width, height, ink.fill, ink.line)
    yield from text([step.name], x + 9, y + 20, ink.text, size=13, weight="600")
    if body:
        yield from text(textwrap.wrap(step.gives, int((width - 12) / 5.6)), x + 9, y + 38, ink.muted, size=11)


def chain(names: list[str], x: float, width: float, ink: Ink) -> Iterator[str]:
    """What a step builds, one part behind the other; wider names get wider boxes."""
    letters, room = sum(map(len, names)), width - 18 - 14 * (len(names) - 1) - 14 * len(names)
    left, top = x + 9, TOP + 42
    for index, name in enumerate(names):
        wide = 14 + room * len(name) / letters
        if index:
            yield arrow(left - 14, top + INNER / 2, left, top + INNER / 2, ink)
        yield frame(left, top, wide, INNER, "none", ink.accent)
        yield from text([name], left + wide / 2, top + 18, ink.accent, size=11, anchor="middle")
        left += wide + 14


def disk(step: Step, x: float, ink: Ink) -> Iterator[str]:
    """What a step leaves on disk, below its box."""
    lines = [line for part in step.leaves.split(", ") for line in textwrap.wrap(part.replace("/", "/ "), 16)]
    yield from text([line.replace("/ ", "/") for line in lines], x, TOP + HEIGHT + 18, ink.muted, size=10, font=MONO)


def frame(x: float, y: float, width: float, height: float, fill: str, line: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" fill="{fill}" stroke="{line}"/>'


def arrow(x1: float, y1: float, x2: float, y2: float, ink: Ink) -> str:
    """A line that ends in a head."""
    start, head = (x1 + 2, "m-5-4l5 4l-5 4") if y1 == y2 else (x1, "m-4 5l4-5l4 5")
    return f'<path d="M{start:g} {y1:g}L{x2:g} {y2:g}{head}" fill="none" stroke="{ink.muted}" stroke-width="1.3"/>'


def text(
    lines: list[str],
    x: float,
    y: float,
    color: str,
    *,
    size: int,
    weight: str = "400",
    font: str = SANS,
    anchor: str = "start",
) -> Iterator[str]:
    style = f'font-family="{font}" font-size="{size}" font-weight="{weight}" fill="{color}" text-anchor="{anchor}"'
    for index, line in enumerate(lines):
        yield f'<text x="{x:g}" y="{y + index * size * 1.3:g}" {style}>{escape(line)}</text>'


if __name__ == "__main__":
    main()
