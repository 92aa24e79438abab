"""ONNX operators that move numbers and make shapes; sizes stay plain numbers on their way."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from flyweight.graph.onnx_import.elementwise import Handler
from flyweight.graph.onnx_import.node import MAX_KNOWN, Call, Known, Value, as_tensor, known

#: A file of a few bytes can ask for any size; more numbers than this are refused.
MAX_MADE = 2**30


def _shape(call: Call) -> Known:
    x = call.value(0)
    sizes = list(x.shape)[call.attribute("start", 0) : call.attribute("end", None)]
    return known(sizes)


def _size(call: Call) -> Known:
    return known(math.prod(call.value(0).shape))


def _reshape(call: Call) -> Value:
    x, wanted = call.value(0), call.numbers(1)
    if not call.attribute("allowzero", 0):
        wanted = [x.shape[at] if isinstance(size, int) and size == 0 else size for at, size in enumerate(wanted)]
    if not isinstance(x, Tensor):
        if len(wanted) <= 1:
            return x.reshape([int(size) for size in wanted])
        x = as_tensor(x)
    return x.reshape(wanted)


def _flatten(call: Call) -> Tensor:
    x = call.tensor(0)
    axis = call.attribute("axis", 1)
    axis += x.ndim if axis < 0 else 0
    if axis == 1 and x.ndim > 1:
        return x.flatten(1)
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def _transpose(call: Call) -> Tensor:
    x = call.tensor(0)
    return x.permute(call.attribute("perm", list(reversed(range(x.ndim)))))


def _squeeze(call: Call) -> Value:
    x, axes = call.value(0), call.axes()
    if not isinstance(x, Tensor):
        return x.reshape(())
    axes = [at for at, size in enumerate(x.shape) if isinstance(size, int) and size == 1] if axes is None else axes
    return x.squeeze(tuple(axes)) if axes else x


def _unsqueeze(call: Call) -> Value:
    x, axes = call.value(0), call.axes() or []
    if not isinstance(x, Tensor):
        if x.ndim + len(axes) <= 1:
            return x.reshape([1] * len(axes)) if axes else x
        x = as_tensor(x)
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _concat(call: Call) -> Value:
    places = [place for place in range(len(call.values)) if call.given(place)]
    if call.all_known():
        return known([item for place in places for item in call.known(place)])
    return torch.cat([call.tensor(place) for place in places], call.attribute("axis", 0))


def _split(call: Call) -> tuple[Value, ...]:
    x, axis = call.value(0), call.attribute("axis", 0)
    total = x.shape[axis]
    sizes = call.numbers(1) if call.given(1) else call.attribute("split")
    if sizes is None:
        parts = call.attribute("num_outputs", len(call.node.outputs))
        one = -(-total // parts)
        sizes = [one] * (parts - 1) + [total - one * (parts - 1)]
    if isinstance(x, Tensor):
        return tuple(torch.split(x, sizes, axis))
    return tuple(np.split(x, np.cumsum(sizes)[:-1]))


def _slice(call: Call) -> Value:
    x = call.value(0)
    if call.given(1):
        starts, ends = call.numbers(1), call.numbers(2)
        axes = call.numbers(3) if call.given(3) else list(range(len(starts)))
        steps = call.numbers(4) if call.given(4) else [1] * len(starts)
    else:
        starts, ends = call.attribute("starts"), call.attribute("ends")
        axes, steps = call.attribute("axes", list(range(len(starts)))), [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        x = _cut(x, int(axis) % max(x.ndim, 1), (start, end, int(step)), call)
    return x


def _cut(x: Value, axis: int, bounds: tuple[Any, Any, int], call: Call) -> Value:
    start, end, step = bounds
    if not isinstance(x, Tensor):
        cut: Known = x[_bound(start) : _bound(end) : step]
        return cut
    if step == 0:
        call.node.refuse("a step of 0.")
    if step < 0:
        size = x.shape[axis]
        places = [*range(size)[_bound(start) : _bound(end) : step]] if isinstance(size, int) else None
        if places is None:
            call.node.refuse("a backward slice of the rows.")
        return x.index_select(axis, torch.tensor(places, dtype=torch.int64, device=x.device))
    return x[(slice(None),) * axis + (slice(start, end, step),)]


def _bound(number: Any) -> int | None:
    """A bound beyond any size means "to the end", in either direction."""
    return None if abs(int(number)) >= 2**31 - 1 else int(number)


def _gather(call: Call) -> Value:
    if call.layer is not None:
        looked: Tensor = call.layer(call.tensor(0))
        return looked
    data, axis = call.value(0), call.attribute("axis", 0)
    where = call.value(1)
    if not isinstance(data, Tensor):
        if not isinstance(where, Tensor):
            picked = data[where.astype(np.int64)]
            return picked if isinstance(picked, np.ndarray) else known(picked)
        data = as_tensor(data, where.device)
    axis += data.ndim if axis < 0 else 0
    if not isinstance(where, Tensor) and where.ndim == 0:
        return data.select(axis, where.item())
    places = call.tensor(1)
    if axis == 0:
        return data[places]
    if places.ndim == 1:
        return data.index_select(axis, torch.where(places < 0, places + data.shape[axis], places))
    return data[(slice(None),) * axis + (places,)]


def _gather_nd(call: Call) -> Tensor:
    if call.attribute("batch_dims", 0):
        call.node.refuse("batch_dims other than 0.")
    return call.tensor(0)[tuple(call.tensor(1).unbind(-1))]


def _expand(call: Call) -> Tensor:
    x, wanted = call.tensor(0), call.numbers(1)
    _check_made(call, wanted)
    rank = max(x.ndim, len(wanted))
    wanted = [1] * (rank - len(wanted)) + wanted
    own = [1] * (rank - x.ndim) + list(x.shape)
    sizes = [mine if isinstance(size, int) and size == 1 else size for size, mine in zip(wanted, own, strict=True)]
    return x.expand(sizes)


def _check_made(call: Call, sizes: list[Any]) -> None:
    made = math.prod(size for size in sizes if isinstance(size, int))
    if made > MAX_MADE:
        call.node.refuse(f"it makes {made:,} numbers; {MAX_MADE:,} are the most.")


def _filled(call: Call) -> Value:
    sizes = call.numbers(0)
    _check_made(call, sizes)
    fill = call.attribute("value")
    fill = np.zeros(1, dtype=np.float32) if fill is None else fill.reshape(-1)
    number = fill[0].item()
    count = math.prod(sizes)
    small = len(sizes) <= 1 and isinstance(count, int) and count <= MAX_KNOWN
    if small and fill.dtype in (np.int64, np.int32, np.bool_):
        return known([number] * count) if sizes else known(number)
    device = next((value.device for value in call.values if isinstance(value, Tensor)), None)
    return torch.full(sizes, number, dtype=torch.from_numpy(fill).dtype, device=device)


def _range(call: Call) -> Tensor:
    start, end, step = (call.known(place).item() for place in range(3))
    _check_made(call, [abs(end - start)])
    return torch.arange(start, end, step)


def _tile(call: Call) -> Tensor:
    _check_made(call, [*call.tensor(0).shape, *call.numbers(1)])
    return call.tensor(0).repeat(call.numbers(1))


def _pad(call: Call) -> Tensor:
    x = call.tensor(0)
    pads = call.numbers(1) if call.given(1) else list(call.attribute("pads"))
    axes = [axis % x.ndim for axis in (call.axes(3) or range(x.ndim))]
    before, after = pads[: len(axes)], pads[len(axes) :]
    amount = {axis: (before[at], after[at]) for at, axis in enumerate(axes)}
    _check_made(call, [size + sum(amount.get(axis, (0, 0))) for axis, size in enumerate(x.shape)])
    mode = call.attribute("mode", "constant")
    flat = [one for axis in reversed(range(x.ndim)) for one in amount.get(axis, (0, 0))]
    while len(flat) > 2 and flat[-1] == flat[-2] == 0:
        flat = flat[:-2]
    if mode == "constant":
        value = call.known(2).item() if call.given(2) else call.attribute("value", 0.0)
        return F.pad(x, flat, value=value)
    names = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}
    if mode not in names or len(flat) > 2 * (x.ndim - 2):
        call.node.refuse(f"mode {mode!r} on dimensions of rows or channels.")
    return F.pad(x, flat, mode=names[mode])


def _depth_to_space(call: Call) -> Tensor:
    x, block = call.tensor(0), call.attribute("blocksize")
    if call.attribute("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, block)
    rows, channels, high, wide = x.shape
    cut = x.reshape(rows, block, block, channels // block**2, high, wide).permute(0, 3, 4, 1, 5, 2)
    return cut.reshape(rows, channels // block**2, high * block, wide * block)


def _space_to_depth(call: Call) -> Tensor:
    x, block = call.tensor(0), call.attribute("blocksize")
    if call.attribute("mode", "DCR") == "CRD":
        return F.pixel_unshuffle(x, block)
    rows, channels, high, wide = x.shape
    cut = x.reshape(rows, channels, high // block, block, wide // block, block).permute(0, 3, 5, 1, 2, 4)
    return cut.reshape(rows, channels * block**2, high // block, wide // block)


def _triangle(call: Call) -> Tensor:
    diagonal = int(call.known(1).item()) if call.given(1) else 0
    return (torch.triu if call.attribute("upper", 1) else torch.tril)(call.tensor(0), diagonal)


_SCATTER = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _scatter_elements(call: Call) -> Tensor:
    data, places, updates = call.tensor(0), call.tensor(1), call.tensor(2)
    axis, how = call.attribute("axis", 0), call.attribute("reduction", "none")
    if how == "none":
        return data.scatter(axis, places, updates)
    return data.scatter_reduce(axis, places, updates, _SCATTER[how])


def _scatter_nd(call: Call) -> Tensor:
    data, places, updates = call.tensor(0), call.tensor(1), call.tensor(2)
    how = call.attribute("reduction", "none")
    if how in ("none", "add"):
        return data.index_put(tuple(places.unbind(-1)), updates, accumulate=how == "add")
    if places.shape[-1] != 1:
        call.node.refuse(f"reduction {how!r} over more than one dimension.")
    rows = places.reshape(-1)
    spread = rows.reshape(-1, *[1] * (data.ndim - 1)).expand(-1, *data.shape[1:])
    return data.scatter_reduce(0, spread, updates.reshape(-1, *data.shape[1:]), _SCATTER[how])


SHAPES: Mapping[str, Handler] = {
    "Shape": _shape,
    "Size": _size,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "GatherND": _gather_nd,
    "GatherElements": lambda call: call.tensor(0).gather(call.attribute("axis", 0), call.tensor(1)),
    "Expand": _expand,
    "ConstantOfShape": _filled,
    "Range": _range,
    "Tile": _tile,
    "Pad": _pad,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Trilu": _triangle,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
}
