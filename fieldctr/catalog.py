"""What the configuration folder holds, read without Hydra: its groups, their options, and a line on each.

The first comment of a YAML file is what `fieldctr list` shows of it.
"""

from pathlib import Path

PACKAGE = Path(__file__).parent


def conf_dir() -> Path:
    """The checkout's conf when it stands beside a pyproject.toml, else the copy in the wheel.

    The checkout must win: an editable install can leave a stale copy in site-packages.
    """
    checkout = PACKAGE.parent / "conf"
    return checkout if (PACKAGE.parent / "pyproject.toml").exists() and checkout.is_dir() else PACKAGE / "conf"


def groups() -> list[str]:
    """The config groups, such as model and dataset."""
    return sorted(path.name for path in conf_dir().iterdir() if path.is_dir())


def options(group: str, own: str | Path | None = None) -> list[str]:
    """The names one can write behind `group=`; nested ones with a slash. Empty for a group that does not exist.

    `own` is the folder of the user's own YAML, if there is one.
    """
    folders = [conf_dir() / group, *([] if own is None else [Path(own) / group])]
    paths = ((folder, path) for folder in folders for path in folder.rglob("*.yaml"))
    return sorted({path.relative_to(folder).with_suffix("").as_posix() for folder, path in paths})


def headline(group: str, option: str) -> str:
    """The leading comment of an option's YAML up to its first full stop at a line's end, on one line."""
    lines = (conf_dir() / group / f"{option}.yaml").read_text(encoding="utf-8").splitlines()
    words = []
    for line in lines:
        if not line.startswith("#"):
            break
        words.append(line.lstrip("# "))
        if line.endswith("."):
            break
    return " ".join(word for word in words if not word.startswith("@package"))
