"""What became of each layer's weights: shapes, types and bytes, read off both models."""

import math
from collections import defaultdict

from torch import Tensor, nn

from flyweight.report.data import LayerRow
from flyweight.task.change import Change

#: Prefixes that a wrapper or a traced graph puts before the names of the original.
_WRAPPERS = ("model.", "body.")


def layer_rows(before: nn.Module, after: nn.Module, changes: tuple[Change, ...]) -> tuple[LayerRow, ...]:
    """Return the weights of two dimensions or more that are no tables and were cut, rounded or taken out."""
    stored = {done["name"]: done for change in changes for done in change.done if done.get("what") == "layer"}
    now = _parts(after)
    rows = []
    for name, weight in _weights(before).items():
        parts = now.get(name, [])
        row = _row(name, weight, parts, stored.get(name.rpartition(".")[0]))
        if row.after != row.before:
            rows.append(row)
    return tuple(rows)


def _row(name: str, weight: Tensor, parts: list[Tensor], stored: dict[str, object] | None) -> LayerRow:
    size = weight.numel() * weight.element_size()
    before = f"{_shape(weight)} {_dtype(weight)}"
    if not parts:
        return LayerRow(name, before, "taken out", size, 0)
    held = sum(part.numel() * part.element_size() for part in parts)
    kind = " + ".join(sorted({_dtype(part) for part in parts}))
    if stored is not None and len(parts) == 1:
        # The module keeps float weights to be trained on; the file holds what the step says.
        kind = str(stored.get("to", kind))
        held = int(str(stored.get("bytes_after", held)))
    shape = _shape(parts[0]) if len(parts) == 1 else f"{sum(math.prod(part.shape) for part in parts):,}"
    return LayerRow(name, before, f"{shape} {kind}", size, held)


def _weights(model: nn.Module) -> dict[str, Tensor]:
    tables = {
        id(module.weight) for module in model.modules() if isinstance(module, (nn.Embedding, nn.EmbeddingBag))
    }
    return {
        name: weight.detach()
        for name, weight in model.named_parameters()
        if weight.ndim > 1 and id(weight) not in tables
    }


def _parts(model: nn.Module) -> dict[str, list[Tensor]]:
    """Return the tensors of a model by the name that they had in the original; several may make up one weight."""
    found: dict[str, list[Tensor]] = defaultdict(list)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        while name.startswith(_WRAPPERS):
            name = name.partition(".")[2]
        found[name].append(tensor.detach())
        outer, _, last = name.rpartition(".")
        if last not in ("weight", "bias"):
            found[outer].append(tensor.detach())  # a weight that is a module of packed parts
    return found


def _shape(tensor: Tensor) -> str:
    return " x ".join(f"{size:,}" for size in tensor.shape)


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
