"""What the configuration folders hold, read without Hydra: their groups, options, and what the YAML says of each.

The first comment of a YAML file is what `fieldctr list` shows of it. `own` is the folder of the user's own YAML, as
--config-dir names it, if there is one.
"""

from collections.abc import Iterable
from pathlib import Path

from fieldctr.errors import UserError, nearest

PACKAGE = Path(__file__).parent
FLAGS = ("--config-dir", "-cd")


def conf_dir() -> Path:
    """The checkout's conf when it stands beside a pyproject.toml, else the copy in the wheel.

    The checkout must win: an editable install can leave a stale copy in site-packages.
    """
    checkout = PACKAGE.parent / "conf"
    return checkout if (PACKAGE.parent / "pyproject.toml").exists() and checkout.is_dir() else PACKAGE / "conf"


def groups() -> list[str]:
    """The config groups, such as model and dataset."""
    return sorted(path.name for path in conf_dir().iterdir() if path.is_dir())


def plural(group: str) -> str:
    """What `fieldctr list` calls all options of a group: models, studies, knowledge."""
    if group == "knowledge":
        return group
    return f"{group[:-1]}ies" if group.endswith("y") else f"{group}s"


def options(group: str, own: str | Path | None = None) -> list[str]:
    """The names one can write behind `group=`; nested ones with a slash. Empty for a group that does not exist."""
    folders = [conf_dir() / group, *([] if own is None else [Path(own) / group])]
    paths = ((folder, path) for folder in folders for path in folder.rglob("*.yaml"))
    return sorted({path.relative_to(folder).with_suffix("").as_posix() for folder, path in paths})


def yaml_file(name: str, own: str | Path | None = None) -> Path | None:
    """The file of a configuration, such as model/fat or train; as in Hydra the package's wins over the user's."""
    folders = [conf_dir(), *([] if own is None else [Path(own)])]
    return next((path for folder in folders if (path := folder / f"{name}.yaml").is_file()), None)


def headline(group: str, option: str, own: str | Path | None = None) -> str:
    """The leading comment of an option's YAML up to its first full stop at a line's end, on one line."""
    path = yaml_file(f"{group}/{option}", own)
    words = []
    for line in path.read_text(encoding="utf-8").splitlines() if path else ():
        if not line.startswith("#"):
            break
        words.append(line.lstrip("# "))
        if line.endswith("."):
            break
    return " ".join(word for word in words if not word.startswith("@package"))


def without_own(arguments: Iterable[str]) -> tuple[list[str], str | None]:
    """The arguments without --config-dir DIR, and that folder; UserError where it is none."""
    rest, own, waits = [], None, False
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if waits or (flag in FLAGS and equals):
            own, waits = value if equals and not waits else argument, False
        elif flag in FLAGS:
            waits = True
        else:
            rest.append(argument)
    refuse_absent("" if waits else own)
    return rest, own


def refuse_absent(own: str | Path | None) -> None:
    """UserError for a folder of the user's own YAML that is none."""
    if own is not None and not (own and Path(own).is_dir()):
        raise UserError(f"--config-dir {own}: expected a folder of your own YAML, with model/ or dataset/ in it")


def chosen(group: str, option: str, own: str | Path | None = None) -> Path:
    """The file of an option that was asked for; UserError where there is none."""
    path = yaml_file(f"{group}/{option}", own)
    if path is None:
        known = options(group, own)
        raise UserError(f"no {group} '{option}'. {nearest(option, known)}All: fieldctr list {group}s")
    return path
