"""A module's operators with the number of rows left open, as compilers want them."""

from typing import TYPE_CHECKING, Any

import numpy as np

from flyweight.engines.inputs import ROWS, Input, Signature
from flyweight.engines.torch_module import Loaded, as_tensor
from flyweight.task.field import REQUESTS, SPREAD_ROWS

if TYPE_CHECKING:
    from torch.export import ExportedProgram

#: Sizes of open dimensions while tracing: unequal where their names are, so that none is taken for another.
_ROWS, _REQUESTS, _OTHERS = 6, 3, (7, 11, 13, 17, 19, 23)


def trace_program(loaded: Loaded, signature: Signature, given: tuple[str, ...]) -> "ExportedProgram":
    """Return the operators of a module; every open dimension of the file stays open.

    Without `request_index` there is one request, and its 1 is a constant that operators are simplified by.
    """
    import torch
    from torch import Tensor, nn

    class ByPlace(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, *values: Tensor) -> Tensor:
            scores: Tensor = self.model(*values)
            return scores

    inputs = {one.name: one for one in (*signature.required, *signature.optional)}
    sizes = {ROWS: _ROWS, SPREAD_ROWS: _ROWS, REQUESTS: _REQUESTS if given else 1}
    shapes = [_shape(inputs[name], sizes) for name in loaded.names]
    values = tuple(
        as_tensor(np.zeros(shape, inputs[name].dtype)) for name, shape in zip(loaded.names, shapes, strict=True)
    )
    dims: Any = tuple(
        {
            place: torch.export.Dim.DYNAMIC
            for place, size in enumerate(inputs[name].shape)
            if size is None and shape[place] != 1
        }
        for name, shape in zip(loaded.names, shapes, strict=True)
    )
    with torch.no_grad():
        return torch.export.export(ByPlace(loaded.module), values, dynamic_shapes=(dims,))


def _shape(one: Input, sizes: dict[str, int]) -> tuple[int, ...]:
    """Return a shape to trace with; dimensions of one name get one size."""
    shape = []
    for place, fixed in enumerate(one.shape):
        label = (one.labels[place] if one.labels else "") or f"{one.name} {place}"
        free = _OTHERS[len(sizes) % len(_OTHERS)]
        shape.append(sizes.setdefault(label, free) if fixed is None else fixed)
    return tuple(shape)
