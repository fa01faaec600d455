"""What the YAML of an option says itself, without what it starts from: which options are other modules."""

from functools import cache

import yaml

from fieldctr.catalog import options, yaml_file
from fieldctr.models.ctr_model import SOURCE


@cache
def own_keys(group: str, option: str) -> set[str]:
    """The keys that stand in its file."""
    path = yaml_file(f"{group}/{option}")
    assert path
    return set(yaml.safe_load(path.read_text(encoding="utf-8")))


def enhancers() -> list[str]:
    """One YAML for each module: the others differ in what their language model read, which no module is told."""
    names = [name for name in options("enhancer") if name != "none"]
    return [name for name in names if own_keys("enhancer", name) - {"defaults", *SOURCE}]
