"""Bytes: of a module's tensors by module and dtype, and of files on disk."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flyweight.errors import InputError

if TYPE_CHECKING:  # sizes on disk are read where PyTorch is not installed
    from torch import Tensor, nn


@dataclass(frozen=True)
class ModuleSize:
    """Bytes of the tensors that one module holds itself, of one dtype.

    Args:
        module: its name in the model; "" for the model itself.
        kind: the class of the module ("Embedding").
        dtype: "float32", "uint8", ...
        bytes: parameters and buffers together.
        tensors: how many there are.
    """

    module: str
    kind: str
    dtype: str
    bytes: int
    tensors: int


def module_sizes(model: "nn.Module") -> tuple[ModuleSize, ...]:
    """Return bytes by module and dtype, in the model's own order; a shared tensor counts once, where it is met first.

    Example: `nn.Linear(3, 2)` holds 6 weights and 2 biases: one entry of 32 bytes in 2 float32 tensors.
    """
    seen: set[tuple[int, int]] = set()
    rows: list[ModuleSize] = []
    for name, module in model.named_modules():
        held: dict[str, list[int]] = {}
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if (place := _place(tensor)) not in seen:
                seen.add(place)
                held.setdefault(str(tensor.dtype).removeprefix("torch."), []).append(tensor.nbytes)
        kind = type(module).__name__
        rows += [ModuleSize(name, kind, dtype, sum(sizes), len(sizes)) for dtype, sizes in held.items()]
    return tuple(rows)


def model_bytes(model: "nn.Module") -> int:
    """Return bytes of all parameters and buffers, shared tensors counted once.

    Example: `nn.Linear(3, 2)` holds (3 x 2 + 2) x 4 = 32 bytes.
    """
    return sum(row.bytes for row in module_sizes(model))


def bytes_on_disk(*paths: str | Path) -> int:
    """Return the bytes of files, and of all files below folders; links are not followed.

    Raises:
        InputError: a path does not exist.
    """
    total = 0
    for path in map(Path, paths):
        if not path.exists():
            raise InputError(f"{path} does not exist, so its bytes cannot be counted.")
        files = [path] if path.is_file() else [file for file in path.rglob("*") if not file.is_symlink()]
        total += sum(file.stat().st_size for file in files if file.is_file())
    return total


def _place(tensor: "Tensor") -> tuple[int, int]:
    """Where a tensor's memory begins; tensors without memory (meta, empty) are told apart by their own identity."""
    pointer = tensor.data_ptr()
    return (pointer, tensor.device.index or 0) if pointer else (id(tensor), -1)
