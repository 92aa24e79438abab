"""One operator of an ONNX file with what goes into it: tensors, or small constants and sizes kept as plain numbers.

A size must not become a tensor on its way from `Shape` to `Reshape`: a traced graph would then depend on values, not on
the number of rows. So sizes, and constants of up to 32 numbers, are NumPy arrays of Python (or symbolic) numbers, of
rank 0 or 1, and arithmetic on them is Python's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flyweight.errors import InputError

#: Numbers known without running the model: an object array of rank 0 or 1.
Known = NDArray[np.object_]
Value = Tensor | Known
#: Constants of more numbers than this are tensors.
MAX_KNOWN = 32


@dataclass(frozen=True)
class Node:
    """An operator of the file.

    Args:
        operator: of the standard set, such as "Gemm".
        name: its own, or that of its first output.
        inputs, outputs: names of values; "" where one is left out.
        attributes: numbers, texts (str), lists, and tensors as NumPy arrays.
        opset: version of the operator set that the file was written for.
        layer: dotted name of the module that holds its weights; "" for none.
        last: values that nothing reads afterwards.
    """

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    opset: int = 20
    layer: str = ""
    last: tuple[str, ...] = ()

    def refuse(self, reason: str) -> NoReturn:
        """Raise the error that says why this node cannot be run."""
        raise InputError(
            f"The ONNX file cannot be run in PyTorch: {self.operator} node {self.name[:80]!r}: {reason} "
            "Export the model again without it, or give the PyTorch module itself."
        )


@dataclass(frozen=True)
class Call:
    """A node about to run.

    Args:
        node: which.
        values: of its inputs; None where one is left out.
        layer: the module with its weights, if it has one.
    """

    node: Node
    values: tuple[Value | None, ...]
    layer: nn.Module | None = None

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute, or what the standard says where it is left out."""
        return self.node.attributes.get(name, default)

    def given(self, place: int) -> bool:
        """Return whether an input is there."""
        return place < len(self.values) and self.values[place] is not None

    def value(self, place: int) -> Value:
        """Return an input as it is."""
        found = self.values[place] if place < len(self.values) else None
        if found is None:
            self.node.refuse(f"input {place} is missing.")
        return found

    def known(self, place: int) -> Known:
        """Return an input that must be known without running the model: a size, an axis, a bound."""
        found = self.value(place)
        if isinstance(found, Tensor):
            self.node.refuse(f"input {place} ({self.node.inputs[place][:80]!r}) depends on the values of the inputs.")
        return found

    def numbers(self, place: int) -> list[Any]:
        """Return a known input as a list."""
        return list(self.known(place).reshape(-1))

    def tensor(self, place: int) -> Tensor:
        """Return an input as a tensor, on the device of the other inputs."""
        found = self.value(place)
        if isinstance(found, Tensor):
            return found
        device = next((value.device for value in self.values if isinstance(value, Tensor)), None)
        return as_tensor(found, device)

    def operand(self, place: int) -> Any:
        """Return an input of an elementwise operator: a single known number as it is, all else as a tensor."""
        found = self.value(place)
        if isinstance(found, Tensor) or found.size != 1:
            return self.tensor(place)
        ranks = [value.ndim for value in self.values if isinstance(value, Tensor)]
        return found.reshape(-1)[0] if ranks and max(ranks) >= found.ndim else self.tensor(place)

    def all_known(self) -> bool:
        """Return whether no input is a tensor."""
        return not any(isinstance(value, Tensor) for value in self.values)

    def axes(self, place: int = 1) -> list[int] | None:
        """Return "axes", an input from operator set 13 or 18 on and an attribute before; None where left out."""
        if self.given(place):
            return [int(axis) for axis in self.numbers(place)]
        found = self.attribute("axes")
        return None if found is None else [int(axis) for axis in found]


def known(values: Any) -> Known:
    """Return numbers, symbolic ones among them, as an object array."""
    items = list(values) if isinstance(values, (list, tuple, torch.Size)) else None
    if items is None:
        single = np.empty((), dtype=object)
        single[()] = values
        return single
    array = np.empty(len(items), dtype=object)
    for place, item in enumerate(items):
        array[place] = item
    return array


def as_tensor(numbers: Known, device: torch.device | None = None) -> Tensor:
    """Return known numbers as int64, bool or float32."""
    items = list(numbers.reshape(-1))
    if any(isinstance(item, torch.SymInt) for item in items):
        made = torch.stack([torch.scalar_tensor(item, dtype=torch.int64, device=device) for item in items])
    elif any(isinstance(item, (float, torch.SymFloat)) for item in items):
        made = torch.tensor([float(item) for item in items], dtype=torch.float32, device=device)
    else:
        kind = torch.bool if items and all(isinstance(item, bool) for item in items) else torch.int64
        made = torch.tensor(items, dtype=kind, device=device)
    return made.reshape(numbers.shape)
