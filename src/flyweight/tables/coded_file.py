"""A coded table in a folder: what `encode_file` leaves there, read back without its codes."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from flyweight.errors import InputError
from flyweight.tables.coding import CodedBand, Coding
from flyweight.tables.packing import packed_bytes


@dataclass(frozen=True)
class CodedFile:
    """A coded table in a folder.

    Args:
        folder: holds `coding.json`, `codebook.npy` and `codes.bin`.
        rows, dim: of the table.
        coding: of every row.
        bytes: of codes and codebook together.
    """

    folder: Path
    rows: int
    dim: int
    coding: Coding
    bytes: int

    def band(self) -> CodedBand:
        """Return it as tables are built of; the codes stay in their file."""
        codes = torch.from_file(str(self.folder / "codes.bin"), size=self._code_bytes(), dtype=torch.uint8)
        codebook = torch.from_numpy(np.load(self.folder / "codebook.npy"))
        return CodedBand(0, self.rows, self.coding, codes, codebook)

    def _code_bytes(self) -> int:
        return packed_bytes(self.rows * self.coding.stages * self.coding.groups, self.coding.bits)


def read_coded_file(folder: Path) -> CodedFile:
    """Return a coded table, its sizes checked.

    Raises:
        InputError: there is none, or it is damaged.
    """
    try:
        held = json.loads((folder / "coding.json").read_text())
        coding = Coding(**held["coding"])
        found = CodedFile(folder, held["rows"], held["dim"], coding, 0)
        codes, codebook = (folder / "codes.bin").stat().st_size, np.load(folder / "codebook.npy", mmap_mode="r")
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder} holds no coded table ({type(error).__name__}: {error}).") from error
    if codes != found._code_bytes() or codebook.shape != _codebook_shape(coding, found.dim):
        raise InputError(f"{folder} is damaged: {codes:,} bytes of codes, {found._code_bytes():,} are due.")
    return CodedFile(folder, found.rows, found.dim, coding, codes + codebook.nbytes)


def fingerprint(folder: Path) -> str:
    """Return what tells two coded tables apart: of codes and codebook."""
    digest = hashlib.sha256()
    for name in ("codebook.npy", "codes.bin"):
        with (folder / name).open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()


def _codebook_shape(coding: Coding, dim: int) -> tuple[int, ...]:
    return coding.stages, coding.groups, 2**coding.bits, dim // coding.groups
