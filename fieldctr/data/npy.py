"""Write and read .npy files some rows at a time.

A memory map would do it in fewer lines, but every page it touches counts as memory of the process.
"""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np

from fieldctr.disk import blamed, replacing


class NpyWriter:
    """A .npy file whose number of rows is known at the end. A context manager.

    numpy pads the header so that its first axis can grow in place; a test holds it to that.
    """

    def __init__(self, path: Path, *, dtype: type, columns: int | None = None) -> None:
        self.path, self.dtype, self.tail, self.rows = path, np.dtype(dtype), () if columns is None else (columns,), 0
        with blamed(path):
            self.file = path.open("wb")
            self._header()

    def append(self, rows: np.ndarray) -> None:
        """Add rows, (n,) or (n, columns), cast to the file's dtype."""
        with blamed(self.path):
            self.file.write(_bytes(rows.astype(self.dtype, copy=False)))
        self.rows += len(rows)

    def _header(self) -> None:
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.rows, *self.tail)}
        np.lib.format.write_array_header_1_0(self.file, header)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with blamed(self.path), self.file:
            if error is None:
                self.file.seek(0)
                self._header()


def save(file: BinaryIO, array: np.ndarray) -> None:
    """Append an array to a file, as np.save does, whose errors say nothing of what the system said."""
    with blamed(Path(file.name)):
        kept = np.asarray(array, order="C")
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(kept))
        file.write(_bytes(kept))


def save_alone(path: Path, array: np.ndarray) -> None:
    """A .npy file of one array, whole or not at all."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        save(file, array)


def _bytes(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def read_chunks(path: Path, *, rows: int = 1 << 16) -> Iterator[np.ndarray]:
    """The rows of a .npy file in order, `rows` at a time."""
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        (total, *tail), _, dtype = np.lib.format.read_array_header_1_0(file)
        for start in range(0, total, rows):
            shape = (min(rows, total - start), *tail)
            yield np.fromfile(file, dtype, count=int(np.prod(shape))).reshape(shape)


def read_blocks(path: Path) -> Iterator[np.ndarray]:
    """The arrays that were saved one behind the other with `np.save` into one file."""
    with path.open("rb") as file:
        while file.peek(1):
            yield np.load(file)
