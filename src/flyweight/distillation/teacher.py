"""What the teacher says of each training batch: computed once, kept small, and computed anew where rows change."""

import tempfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from flyweight.distillation.checksum import bytes_of
from flyweight.errors import InputError
from flyweight.task.scores import call_model, evaluating

#: Bytes of outputs kept as they are; further ones are rounded to float16, a relative error of 5e-4.
EXACT_BYTES = 1 << 28
#: Bytes of outputs kept in memory; further ones lie in a file.
MEMORY_BYTES = 1 << 30


class Teacher:
    """A teacher's outputs, by the number of the batch in the split.

    A batch is known again by a checksum of its inputs. Where a pass gives other rows than the first one did (random
    augmentation, an own order each time), the teacher is asked again, and `changed` counts how often.

    Args:
        model: only evaluated, without gradients.
        exact_bytes, memory_bytes: see EXACT_BYTES and MEMORY_BYTES.
    """

    def __init__(self, model: nn.Module, exact_bytes: int = EXACT_BYTES, memory_bytes: int = MEMORY_BYTES) -> None:
        self.model = model
        self.exact_bytes, self.memory_bytes = exact_bytes, memory_bytes
        self.asked = 0
        self.changed = 0
        self.bytes = 0
        self._kept: dict[int, tuple[int, Tensor | _Stored]] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def outputs(self, number: int, inputs: dict[str, Tensor], rows: int) -> Tensor:
        """Return the teacher's outputs for batch `number`, (rows,) or (rows, columns), in its own dtype."""
        key = checksum(inputs)
        if number in self._kept and self._kept[number][0] == key:
            kept = self._kept[number][1]
            return kept.read() if isinstance(kept, _Stored) else kept.float() if _half(kept) else kept
        said = self.ask(inputs, rows)
        if number in self._kept:
            self.changed += 1
        else:
            self._kept[number] = key, self._keep(number, said)
        return said

    def ask(self, inputs: dict[str, Tensor], rows: int) -> Tensor:
        """Return the teacher's outputs, computed now.

        Raises:
            InputError: they are not finite, so nothing can be learned from them.
        """
        self.asked += 1
        with evaluating(self.model), torch.no_grad():
            said = call_model(self.model, inputs, rows)
        if not bool(torch.isfinite(said).all()):
            bad = int((~torch.isfinite(said)).sum())
            raise InputError(f"The teacher gives {bad} NaN or infinite outputs of {said.numel()} on a training batch.")
        return said

    def close(self) -> None:
        """Give back the file, if there is one."""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
        self._kept.clear()

    def _keep(self, number: int, said: Tensor) -> "Tensor | _Stored":
        small = said
        if self.bytes + said.nbytes > self.exact_bytes and said.dtype == torch.float32 and _fits_half(said):
            small = said.half()
        self.bytes += small.nbytes
        if self.bytes <= self.memory_bytes:
            return small
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="flyweight-teacher-")
        path = Path(self._folder.name, f"{number}.npy")
        np.save(path, small.numpy(), allow_pickle=False)
        return _Stored(path)


class _Stored:
    """Outputs that lie in a file, read through the page cache."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Tensor:
        values = torch.from_numpy(np.load(self.path, mmap_mode="c", allow_pickle=False))
        return values.float() if _half(values) else values


def checksum(inputs: dict[str, Tensor]) -> int:
    """Return the CRC-32 of a batch's inputs, to tell whether a later pass gives the same rows."""
    code = 0
    for values in inputs.values():
        code = zlib.crc32(bytes_of(values), code)
    return code


def _half(values: Tensor) -> bool:
    return values.dtype == torch.float16


def _fits_half(values: Tensor) -> bool:
    return not values.numel() or float(values.abs().max()) <= torch.finfo(torch.float16).max
