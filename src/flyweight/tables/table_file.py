"""A table in a file, read block by block: NumPy's and safetensors' formats, without a map of the whole in memory.

A memory map would do the same with less code, but every page that was touched counts as resident until the system wants
it back. Reads into a block of their own keep to that block.
"""

import json
import math
import os
import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flyweight.errors import InputError

#: Names that safetensors gives to the types a table may have, and how their bytes are read.
SAFETENSORS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
#: A header larger than this is none.
MOST_HEADER = 100 << 20


@dataclass(frozen=True)
class TableFile:
    """A table of rows in a file.

    Args:
        path: of the file; name: of the tensor in it, "" where it holds one alone.
        offset: bytes before the first row.
        rows, dim: its shape.
        dtype: "float32", "float16" or "bfloat16".
        stamp: size and time of the last change, by which a file that changes while it is read is noticed.
    """

    path: Path
    name: str
    offset: int
    rows: int
    dim: int
    dtype: str
    stamp: tuple[int, int]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.dim * (4 if self.dtype == "float32" else 2)

    def read(self, start: int, stop: int) -> Tensor:
        """Return the rows [start, stop), (stop - start, dim) float32; as many after them are fetched meanwhile.

        Raises:
            InputError: the file changed or ended, or a row holds NaN or infinity; names the row.
        """
        rows = self._room(stop - start)
        with self.path.open("rb", buffering=0) as file:
            self._check(file.fileno())
            self._fill(file.fileno(), rows, start)
            if hasattr(os, "posix_fadvise"):  # the disk works on what comes next while these rows are computed on
                end, size = self.offset + stop * self.row_bytes, rows.numel() * rows.element_size()
                os.posix_fadvise(file.fileno(), end, size, os.POSIX_FADV_WILLNEED)
        return self._finite(rows.float(), torch.arange(start, stop))

    def gather(self, rows: Tensor) -> Tensor:
        """Return some rows, (n, dim) float32, read one by one in the order of the file."""
        found = self._room(len(rows))
        with self.path.open("rb", buffering=0) as file:
            self._check(file.fileno())
            for place in rows.argsort().tolist():
                self._fill(file.fileno(), found[place : place + 1], int(rows[place]))
        return self._finite(found.float(), rows)

    def _room(self, rows: int) -> Tensor:
        return torch.empty(rows, self.dim, dtype=getattr(torch, self.dtype))

    def _fill(self, file: int, rows: Tensor, start: int) -> None:
        """Read rows of the file, from `start` on, into a tensor that lies in one piece."""
        view = memoryview(rows.view(torch.uint8).numpy().reshape(-1).data)
        at, done = self.offset + start * self.row_bytes, 0
        while done < len(view):
            got = os.preadv(file, [view[done:]], at + done)
            if not got:
                row = start + done // self.row_bytes
                raise InputError(f"{self.path} ended before row {row:,}; it was cut while it was read.")
            done += got

    def _check(self, file: int) -> None:
        seen = os.fstat(file)
        if (seen.st_size, seen.st_mtime_ns) != self.stamp:
            sizes = f"{self.stamp[0]:,} bytes then, {seen.st_size:,} now"
            how = sizes if seen.st_size != self.stamp[0] else "as large as before, written to since"
            raise InputError(
                f"{self.path} changed while it was read ({how}); encode it again once nothing writes to it."
            )

    def _finite(self, values: Tensor, rows: Tensor) -> Tensor:
        """Return values (n, dim) that are all finite; `rows` (n,) are their numbers."""
        if bool(values.sum().isfinite()):  # one pass at the memory's speed; the test row by row is slower by ten
            return values
        finite = values.isfinite().all(1)
        if not bool(finite.all()):
            row = int(rows[int((~finite).nonzero()[0])])
            raise InputError(f"Row {row:,} of {self.path} holds NaN or infinity; mend the table first.")
        return values


def open_table(path: Path, name: str = "") -> TableFile:
    """Return a table in a .npy or .safetensors file.

    Args:
        name: of the tensor, where a safetensors file holds several.

    Raises:
        InputError: no such file, format, tensor, type or shape; or the file is shorter than its header says.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
            kind = "npy" if start[:6] == b"\x93NUMPY" else "safetensors"
            file.seek(0)
            offset, shape, dtype, found = _npy(file, path) if kind == "npy" else _safetensors(file, path, name)
            seen = os.fstat(file.fileno())
    except OSError as error:
        raise InputError(f"The table {path} cannot be read: {error.strerror}.") from error
    if len(shape) != 2 or min(shape) < 1:
        raise InputError(f"{path} holds an array of shape {tuple(shape)}; a table has rows and columns.")
    table = TableFile(path, found, offset, shape[0], shape[1], dtype, (seen.st_size, seen.st_mtime_ns))
    due = offset + table.rows * table.row_bytes
    if seen.st_size < due:
        raise InputError(f"{path} is cut short: its header says {due:,} bytes, and it has {seen.st_size:,}.")
    return table


def _npy(file: Any, path: Path) -> tuple[int, tuple[int, ...], str, str]:
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except (ValueError, SyntaxError, tokenize.TokenError) as error:  # a header is read as a literal of Python
        raise InputError(f"{path} is no NumPy file: {error}.") from error
    if fortran:
        raise InputError(f"{path} lies column by column; save it row by row (np.ascontiguousarray).")
    if dtype.str not in ("<f4", "<f2"):
        raise InputError(f"{path} is of {dtype}; a table is float32 or float16.")
    return file.tell(), shape, str(dtype), ""


def _safetensors(file: Any, path: Path, name: str) -> tuple[int, tuple[int, ...], str, str]:
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= MOST_HEADER:
        raise InputError(f"{path} is neither a NumPy nor a safetensors file.")
    try:
        header = json.loads(file.read(length))
        held = {key: value for key, value in header.items() if key != "__metadata__"}
        name = name or (next(iter(held)) if len(held) == 1 else "")
        if name not in held:
            raise InputError(f"{path} holds {', '.join(sorted(held)) or 'nothing'}; name one of them as the table.")
        kind, shape, (begin, end) = str(held[name]["dtype"]), tuple(held[name]["shape"]), held[name]["data_offsets"]
        if any(type(size) is not int or size < 0 for size in (*shape, begin, end)):
            raise ValueError("sizes are whole numbers")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is neither a NumPy nor a safetensors file.") from error
    if kind not in SAFETENSORS:
        raise InputError(f"{name} in {path} is of {kind}; a table is float32, float16 or bfloat16.")
    due = math.prod(shape) * (4 if kind == "F32" else 2)
    if end - begin != due:
        raise InputError(f"{name} in {path} takes {due:,} bytes by its shape, and {end - begin:,} by its place.")
    return 8 + length + begin, shape, SAFETENSORS[kind], name
