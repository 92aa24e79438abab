"""How units pass through operators that only move values: views, transpositions, parts, concatenations."""

from collections.abc import Sequence
from typing import Any

from torch import fx

from flyweight.graph.coupled.axes import Atom, Dim, labelled, length_of, shape_of, size_of, whole
from flyweight.graph.coupled.flow import Flow, Result, Rule, place

Arguments = dict[str, Any]


def _reshape(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    return flow.labels.reshape(flow.of(given["self"]), shape_of(node), node.name)


def _reshape_as(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    result = flow.labels.reshape(flow.of(given["self"]), shape_of(node), node.name)
    return tuple(flow.labels.meet(a, b) for a, b in zip(result, flow.of(given["other"]), strict=True))


def _permute(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    value = flow.of(given["self"])
    return tuple(value[place(dim, len(value))] for dim in given["dims"])


def _transpose(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    value = list(flow.of(given["self"]))
    one, other = place(given["dim0"], len(value)), place(given["dim1"], len(value))
    value[one], value[other] = value[other], value[one]
    return tuple(value)


def _reverse(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    return flow.of(given["self"])[::-1]


def _move(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    value = flow.of(given["self"])
    pairs = zip(_many(given["source"]), _many(given["destination"]), strict=True)
    target = {place(to, len(value)): place(source, len(value)) for source, to in pairs}
    left = iter([dim for dim in range(len(value)) if dim not in target.values()])
    return tuple(value[target[dim] if dim in target else next(left)] for dim in range(len(value)))


def _many(dims: Any) -> Sequence[int]:
    return [dims] if isinstance(dims, int) else list(dims)


def _unsqueeze(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    value = flow.of(given["self"])
    at = place(given["dim"], len(value) + 1)
    return (*value[:at], (), *value[at:])


def _squeeze(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    value = flow.of(given["self"])
    asked = given.get("dim")
    dims = set(range(len(value))) if asked is None else {place(dim, len(value)) for dim in _many(asked)}
    return tuple(dim for at, dim in enumerate(value) if at not in dims or length_of(dim) != 1)


def _expand(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    value, shape = flow.of(given["self"]), shape_of(node)
    ahead = len(shape) - len(value)
    new = [whole(size, "repeats made by expand") for size in shape]
    return (*new[:ahead], *(dim or fresh for dim, fresh in zip(value, new[ahead:], strict=True)))


def _expand_as(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    return flow.labels.meet_all(flow.of(given["other"]), flow.of(given["self"]))


def _repeat(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    value = flow.of(given["self"])
    times = [size_of(n) if isinstance(n, int) else size_of(n.meta["val"]) for n in given["repeats"]]
    value = ((),) * (len(times) - len(value)) + value
    return tuple(whole(n, "repeats") + dim for n, dim in zip(times, value, strict=True))


def _repeat_interleave(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    value, times = flow.of(given["self"]), given["repeats"]
    if given["dim"] is None or not isinstance(times, int):
        return flow.refuse(node)
    at = place(given["dim"], len(value))
    return (*value[:at], value[at] + whole(times, "repeats"), *value[at + 1 :])


def _select(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    value = flow.of(given["self"])
    at = place(given["dim"], len(value))
    length, index = length_of(value[at]), given["index"]
    if labelled(value[at]) and isinstance(length, int) and isinstance(index, int):
        index = place(index, length)
        flow.piece(node, value[at], index, index + 1)
    else:
        flow.labels.freeze(value[at], "one of its values is read by a place that depends on the rows")
    return value[:at] + value[at + 1 :]


def _unbind(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    value = flow.of(given["self"])
    at = place(given["dim"], len(value))
    flow.labels.freeze(value[at], "its values are taken apart one by one")
    return [value[:at] + value[at + 1 :]] * len(node.meta["val"])


def _slice(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    value = flow.of(given["self"])
    at = place(given["dim"], len(value))
    new, old = shape_of(node)[at], length_of(value[at])
    if new == old:
        return value
    start = given["start"] or 0
    if not labelled(value[at]):
        return (*value[:at], whole(new, "a part of an axis"), *value[at + 1 :])
    if not (isinstance(new, int) and isinstance(old, int) and isinstance(start, int)) or given.get("step", 1) != 1:
        flow.labels.freeze(value[at], "a part of it is taken with a step, or with an end that depends on the rows")
        return (*value[:at], whole(new, "a part of an axis"), *value[at + 1 :])
    start = min(max(start + old if start < 0 else start, 0), old)
    return (*value[:at], flow.piece(node, value[at], start, start + new), *value[at + 1 :])


def _split(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    value = flow.of(given["self"])
    at = place(given["dim"], len(value))
    sizes = [size_of(part.shape[at]) for part in node.meta["val"]]
    parts: list[Dim] = []
    start = 0
    for number, size in enumerate(sizes):
        if labelled(value[at]) and isinstance(size, int):
            parts.append(flow.labels.cut_out(value[at], start, start + size, f"{node.name}.{number}"))
            start += size
        else:
            flow.labels.freeze(value[at], "split into parts whose length depends on the number of rows")
            parts.append(whole(size, "a part of an axis"))
    return [(*value[:at], part, *value[at + 1 :]) for part in parts]


def item(flow: Flow, node: fx.Node) -> Result:
    """Return one of the tensors that a node gave."""
    found = flow.values[node.args[0]]  # type: ignore[index]
    assert isinstance(found, list)
    return found[node.args[1]]  # type: ignore[index]


def _cat(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    values = [flow.of(one) for one in given["tensors"]]
    values = [value for value in values if not (len(value) == 1 and length_of(value[0]) == 0)]  # an empty list's start
    at = place(given["dim"], len(values[0]))
    return tuple(
        _joined(flow, [value[dim] for value in values]) if dim == at else _met(flow, [value[dim] for value in values])
        for dim in range(len(values[0]))
    )


def _joined(flow: Flow, dims: list[Dim]) -> Dim:
    return flow.labels.join(dims, "values whose number depends on the rows" if len(dims) > 1 else "")


def _met(flow: Flow, dims: list[Dim]) -> Dim:
    found = dims[0]
    for dim in dims[1:]:
        found = flow.labels.meet(found, dim)
    return found


def _stack(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    values = [flow.of(one) for one in given["tensors"]]
    at = place(given["dim"], len(values[0]) + 1)
    found = [_met(flow, [value[dim] for value in values]) for dim in range(len(values[0]))]
    return (*found[:at], whole(len(values), "tensors laid side by side"), *found[at:])


def _flip(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    value = list(flow.of(given["self"]))
    for dim in given["dims"]:
        value[dim] = tuple(
            Atom(atom.size, None if atom.ids is None else atom.ids[::-1], atom.why) for atom in value[dim]
        )
    return tuple(value)


def _along(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    """Softmax, running sums, sorting: along one dimension the values depend on each other or on their places."""
    if given.get("k") is not None:
        return flow.refuse(node)
    value = flow.of(given["self"])
    dims = given.get("dim", given.get("dims"))
    for dim in range(len(value)) if dims is None else _many(dims):
        flow.labels.freeze(value[dim], f"{node.target} goes along it")
    if isinstance(node.meta["val"], (list, tuple)):
        return [value, value]
    return value


def _index(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    """Reading rows of a table, or masks: the dimensions that are indexed stay whole, the others pass."""
    value, indices = flow.of(given["self"]), list(given["indices"])
    indices += [None] * (len(value) - len(indices))
    used = [at for at, index in enumerate(indices) if index is not None]
    if any(index is not None and "bool" in str(index.meta["val"].dtype) for index in indices):
        return flow.refuse(node)
    for at in used:
        flow.labels.freeze(value[at], "it is read by ids")
        flow.labels.freeze(flow.of(indices[at]), "it holds ids")
    left = [at for at in range(len(value)) if at not in used]
    shape = shape_of(node)
    new = len(shape) - len(left)
    side_by_side = used == list(range(used[0], used[-1] + 1))
    ahead = used[0] if side_by_side else 0
    between = tuple(whole(size, "rows looked up") for size in shape[ahead : ahead + new])
    kept = [value[at] for at in left]
    for dim in kept if given["self"].op == "get_attr" else ():
        flow.produce(dim, "embedding")
    return (*kept[:ahead], *between, *kept[ahead:])


def _index_select(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    value = list(flow.of(given["self"]))
    at = place(given["dim"], len(value))
    flow.labels.freeze(value[at], "it is read by ids")
    value[at] = whole(shape_of(node)[at], "rows looked up")
    return tuple(value)


def _embedding(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    rows, width = flow.of(given["weight"])
    flow.labels.freeze(rows, "it is read by ids")
    flow.produce(width, "embedding")
    return (*(whole(size, "rows looked up") for size in shape_of(node)[:-1]), width)


def _pixel_shuffle(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    """Each channel of the result is a block of channels of the input."""
    value, factor = flow.of(given["self"]), int(given["upscale_factor"])
    ahead, (channels, *space) = value[:-3], shape_of(node)[-3:]
    (out, inside) = flow.labels.reshape((value[-3],), (channels, factor * factor), node.name)
    flow.labels.freeze((inside, *value[-2:]), "pixels are laid side by side from it")
    return (*ahead, out, *(whole(length, "the width and height of an image") for length in space))


def _made(flow: Flow, node: fx.Node, given: Arguments) -> Result:
    """Tensors of zeros, of ones, of one value: as long as they are asked to be."""
    shape = shape_of(node)
    return tuple(
        (Atom(size, flow.labels.fresh(size)),) if isinstance(size, int) and size > 1 else whole(size, "a constant")
        for size in shape
    )


RULES: dict[str, Rule] = {
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "flatten", "unflatten"), _reshape),
    **dict.fromkeys(("view_as", "reshape_as"), _reshape_as),
    "permute": _permute,
    **dict.fromkeys(("transpose", "swapaxes", "swapdims"), _transpose),
    **dict.fromkeys(("t", "numpy_T"), _reverse),
    **dict.fromkeys(("movedim", "moveaxis"), _move),
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    "expand": _expand,
    "expand_as": _expand_as,
    "repeat": _repeat,
    "repeat_interleave": _repeat_interleave,
    "select": _select,
    "unbind": _unbind,
    **dict.fromkeys(("slice", "narrow"), _slice),
    **dict.fromkeys(("split", "split_with_sizes", "chunk", "tensor_split"), _split),
    **dict.fromkeys(("cat", "concat", "concatenate"), _cat),
    "stack": _stack,
    "flip": _flip,
    **dict.fromkeys(("softmax", "log_softmax", "cumsum", "cumprod", "roll", "sort", "topk", "argsort"), _along),
    "index": _index,
    "index_select": _index_select,
    "embedding": _embedding,
    "pixel_shuffle": _pixel_shuffle,
    **dict.fromkeys(("zeros", "ones", "full", "empty"), _made),
}
