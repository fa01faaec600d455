"""Read a YAML file that a stranger may have written: what it would cost is counted before anything is built of it.

An alias stands for all that its anchor holds, a merge key for all that it merges: a kilobyte can spell out billions of
values. The parser's events come one by one and cost what the file is long: they are counted, aliases written out.
"""

import io
import re
import stat
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fieldctr.errors import UserError

MAX_BYTES = 4 << 20  # a table of 3,000 fields takes 200 KB
MAX_DEPTH = 50
MAX_VALUES = 100_000  # a table of 3,000 fields with ten keys each takes 70,000
TOO_MANY = f"more than {MAX_VALUES:,} values once aliases and ${{...}} are written out"
PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # 15 times faster where libyaml is


def read_yaml(path: Path) -> tuple[Any, str, int]:
    """The OmegaConf container in a file, its text, and how many values it spells out. UserError where it has none."""
    text = _text(path)
    try:
        values = _num_values(text, path)
        return OmegaConf.load(io.StringIO(text)), text, values
    except yaml.MarkedYAMLError as error:
        raise UserError(_syntax(path, error)) from error
    except (yaml.YAMLError, ValueError, OmegaConfBaseException) as error:
        raise UserError(f"{path}: {' '.join(str(error).split())[:500]}") from error


def _text(path: Path) -> str:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_BYTES:
        raise UserError(f"{path} has {found.st_size:,} bytes: a YAML file of at most {MAX_BYTES:,} is expected")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 text (byte {error.start:,}): save it as UTF-8") from error


def _num_values(text: str, path: Path) -> int:
    """Scalars and collections, with aliases written out. A text with ${ costs more, for it will be parsed."""
    sizes: dict[str, int] = {}
    anchors: list[str | None] = [None]
    counts = [0]
    for event in yaml.parse(text, Loader=PARSER):
        if isinstance(event, yaml.CollectionStartEvent):
            anchors.append(event.anchor)
            counts.append(1)
            if len(counts) > MAX_DEPTH:
                line = event.start_mark.line + 1
                raise UserError(f"{path} line {line}: nested deeper than {MAX_DEPTH} levels")
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            size, anchor = counts.pop(), anchors.pop()
        elif isinstance(event, yaml.ScalarEvent):
            size, anchor = 1 + _interpolations(event.value, path), event.anchor
            if len(counts) == 1 and event.value not in ("", "~", "null"):
                raise UserError(f"{path} holds one text, '{event.value[:40]}': expected a mapping, KEY: VALUE")
        elif isinstance(event, yaml.AliasEvent):
            line = event.start_mark.line + 1
            if event.anchor not in sizes:
                raise UserError(f"{path} line {line}: *{event.anchor} stands inside itself, or for nothing")
            size, anchor = sizes[event.anchor], None
        else:
            continue
        if anchor:
            sizes[anchor] = size
        counts[-1] += size
        if counts[-1] > MAX_VALUES:
            raise UserError(f"{path}: {TOO_MANY}")
    return counts[0]


def _interpolations(text: str, path: Path) -> int:
    """What it costs to parse the interpolations in a text: a character takes as long as two values."""
    if "${" not in text:
        return 0
    depth = 0
    for bracket in re.findall(r"\$\{|\}", text):
        depth += 1 if bracket == "${" else -1
        if depth > MAX_DEPTH:
            raise UserError(f"{path}: ${{...}} within ${{...}} deeper than {MAX_DEPTH} levels")
    return 2 * len(text)


def _syntax(path: Path, error: yaml.MarkedYAMLError) -> str:
    """YAML's own words on one line; the line is counted from 1."""
    mark = error.problem_mark or error.context_mark
    where = f"{path} line {mark.line + 1}" if mark else str(path)
    context = f" ({error.context})" if error.context else ""
    return f"{where}: no valid YAML: {error.problem}{context}. Tabs do not indent, and texts with : or # need quotes"
