"""A bundle's folder: whole, or absent."""

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

from fieldctr.disk import TEMPORARY, blamed, flush, remove
from fieldctr.errors import UserError
from fieldctr.locks import lock, remove_unowned


def refuse_taken(folder: Path) -> None:
    """UserError where something has the name already."""
    if folder.exists() or folder.is_symlink():
        raise UserError(f"output={folder} is there already. Name another folder, or remove it")


@contextmanager
def written(folder: Path) -> Generator[Path]:
    """A sibling to fill, which then gets the name `folder`; after an error nothing is left.

    What a killed process left is removed by the next one that writes the same folder.
    """
    with blamed(folder):
        folder = folder.absolute()
        folder.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{folder.name[:100]}."
        remove_unowned(folder.parent.glob(f"{escape(prefix)}*{TEMPORARY}"))
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=prefix, suffix=TEMPORARY))
        release = lock(temporary)
        try:
            yield temporary
            for path in (*filter(Path.is_file, temporary.rglob("*")), temporary):
                flush(path)
            temporary.chmod(0o755)
            refuse_taken(folder)
            temporary.rename(folder)
            flush(folder.parent)
        finally:
            remove([temporary])
            release()
