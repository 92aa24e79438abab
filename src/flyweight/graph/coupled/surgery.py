"""The constants of a graph after a cut: sizes of views and parts, shapes of norms, numbers of groups."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx

from flyweight.graph.coupled.axes import Dim, Ids, Value, size_of
from flyweight.graph.coupled.flow import Flow, arguments, place

aten = torch.ops.aten


@dataclass(frozen=True, eq=False)
class Cut:
    """Which indices stay.

    Args:
        flow: dimensions of every node of the graph before the cut.
        stays: (ids,).
    """

    flow: Flow
    stays: npt.NDArray[np.bool_]

    def left(self, ids: Ids) -> int:
        """Return how many places are left of these."""
        return int(self.stays[ids].sum())

    def sizes(self, dim: Dim) -> tuple[int, int]:
        """Return the product of the lengths before and after the cut, of those axes that lose something."""
        before = after = 1
        for atom in dim:
            if atom.ids is not None and not self.stays[atom.ids].all():
                before, after = before * len(atom.ids), after * self.left(atom.ids)
        return before, after

    def length(self, dim: Dim, old: Any) -> Any:
        """Return the length that a dimension of length `old` has after the cut."""
        before, after = self.sizes(dim)
        return old if before == after else old // before * after

    def loses(self, value: Value) -> bool:
        """Return whether any dimension gets shorter."""
        return any(before != after for before, after in map(self.sizes, value))


def correct(cut: Cut, old: fx.Node, new: fx.Node) -> None:
    """Change a node's constants to what the cut leaves; `old` is the same node of the graph before."""
    if old.op != "call_function" or not hasattr(old.target, "_schema"):
        return
    name = str(old.target).split(".")[1]
    surgeon = SURGEONS.get(name)
    if surgeon is not None:
        surgeon(cut, old, new)
    if old in cut.flow.parts:
        ids = cut.flow.parts[old].ids
        assert ids is not None
        _set(new, "num_groups" if name == "group_norm" else "groups", cut.left(ids))


def reshape(cut: Cut, old: fx.Node, new: fx.Node) -> None:
    """Give a node's notes on its result the new shape."""
    result, value = old.meta.get("val"), cut.flow.values.get(old)
    if isinstance(result, Tensor) and isinstance(value, tuple) and cut.loses(value):
        new.meta["val"] = _reshaped(cut, result, value)
    elif isinstance(value, list) and any(cut.loses(part) for part in value):
        parts = zip(result or (), value, strict=True)
        new.meta["val"] = [_reshaped(cut, one, part) if isinstance(one, Tensor) else one for one, part in parts]


def _reshaped(cut: Cut, result: Tensor, value: Value) -> Tensor:
    shape = [cut.length(dim, length) for dim, length in zip(value, result.shape, strict=True)]
    return result.new_empty(shape)


def _set(node: fx.Node, name: str, value: Any) -> None:
    """Change one argument by its name in the operator's schema."""
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    if names.index(name) < len(node.args):
        node.update_arg(names.index(name), value)
    else:
        node.update_kwarg(name, value)


def _view(cut: Cut, old: fx.Node, new: fx.Node) -> None:
    _resize(cut, new, "shape" if "reshape" in str(old.target) else "size", cut.flow.of(old))


def _expand(cut: Cut, old: fx.Node, new: fx.Node) -> None:
    _resize(cut, new, "size", cut.flow.of(old), computed=False)


def _unflatten(cut: Cut, old: fx.Node, new: fx.Node) -> None:
    value, given = cut.flow.of(old), arguments(old)
    at = place(given["dim"], len(cut.flow.of(given["self"])))
    _resize(cut, new, "sizes", value[at : at + len(given["sizes"])])


def _resize(cut: Cut, node: fx.Node, name: str, value: Value, computed: bool = True) -> None:
    """Correct a list of sizes; one that depends on the rows is left to the operator (-1) where it can compute it."""
    sizes = list(arguments(node)[name])
    for at, (size, dim) in enumerate(zip(sizes, value, strict=True)):
        before, after = cut.sizes(dim)
        if before == after or size == -1:
            continue
        if isinstance(size, int):
            sizes[at] = size // before * after
        elif computed and -1 not in sizes:
            sizes[at] = -1
        else:
            sizes[at] = _scaled(node, size, before, after)
    _set(node, name, sizes)


def _scaled(before_node: fx.Node, number: fx.Node, before: int, after: int) -> fx.Node:
    graph = before_node.graph
    with graph.inserting_before(before_node):
        part = graph.call_function(operator.floordiv, (number, before))
        whole = graph.call_function(operator.mul, (part, after))
    length = number.meta["val"]
    part.meta = {**number.meta, "val": length // before}
    whole.meta = {**number.meta, "val": length // before * after}
    return whole


def _symbolic(cut: Cut, old: fx.Node, new: fx.Node) -> None:
    """A length that is read from a tensor: all numbers computed from it stay what they were."""
    given = arguments(old)
    value = cut.flow.of(given["self"])
    before, after = cut.sizes(value[place(given["dim"], len(value))])
    if before != after:
        new.meta["val"] = old.meta["val"] // before * after
        whole = _scaled(new.next, new, after, before)
        new.replace_all_uses_with(whole, delete_user_cb=lambda user: user is not whole.args[0])


def _parts(cut: Cut, old: fx.Node, new: fx.Node) -> None:
    given, parts = arguments(old), cut.flow.values[old]
    assert isinstance(parts, list)
    at = place(given["dim"], len(parts[0]))
    if any(cut.loses((part[at],)) for part in parts):
        olds = [size_of(one.shape[at]) for one in old.meta["val"]]
        sizes = [cut.length(part[at], size) for part, size in zip(parts, olds, strict=True)]
        new.target = aten.split_with_sizes.default
        new.args, new.kwargs = (new.args[0], sizes, given["dim"]), {}


def _slice(cut: Cut, old: fx.Node, new: fx.Node) -> None:
    given = arguments(old)
    value = cut.flow.of(old)
    at = place(given["dim"], len(value))
    if old not in cut.flow.before:
        return
    start = cut.left(cut.flow.before[old])
    length = cut.length(value[at], size_of(old.meta["val"].shape[at]))
    _set(new, "start", start)
    if "length" in given:
        _set(new, "length", length)
    else:
        _set(new, "end", start + length)


def _select(cut: Cut, old: fx.Node, new: fx.Node) -> None:
    if old in cut.flow.before:
        _set(new, "index", cut.left(cut.flow.before[old]))


def _norm(cut: Cut, old: fx.Node, new: fx.Node) -> None:
    shape = arguments(old)["normalized_shape"]
    dims = cut.flow.of(old)[-len(shape) :]
    _set(new, "normalized_shape", [cut.length(dim, length) for dim, length in zip(dims, shape, strict=True)])




SURGEONS: dict[str, Callable[[Cut, fx.Node, fx.Node], None]] = {
    **dict.fromkeys(("view", "reshape", "_unsafe_view"), _view),
    "expand": _expand,
    "unflatten": _unflatten,
    **dict.fromkeys(("zeros", "ones", "full", "empty"), _expand),
    "sym_size": _symbolic,
    **dict.fromkeys(("split", "split_with_sizes", "chunk", "tensor_split"), _parts),
    **dict.fromkeys(("slice", "narrow"), _slice),
    "select": _select,
    **dict.fromkeys(("layer_norm", "rms_norm"), _norm),
}
