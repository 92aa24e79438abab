"""Operators that values side by side can be put through one by one: `relu(cat([u, i])) = cat([relu(u), relu(i)])`."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

import flyweight.graph.quantize_ops  # noqa: F401 - defines the operators below
from flyweight.graph.tensors import read_tensor
from flyweight.rewrite.emit import emit, shape_of
from flyweight.rewrite.weights import constant, unused_name

aten = torch.ops.aten
#: Each number by itself; all arguments but the first are numbers.
_EACH = frozenset(
    {
        *(getattr(aten, name).default for name in ("relu", "leaky_relu", "elu", "sigmoid", "tanh", "gelu", "silu")),
        *(getattr(aten, name).default for name in ("neg", "exp", "log1p", "abs", "square", "sqrt", "clamp", "dropout")),
        *(getattr(aten, name).default for name in ("hardtanh", "relu6", "detach", "alias", "clone", "_to_copy")),
        aten.to.dtype,
        aten.pow.Tensor_Scalar,
        aten.rsub.Scalar,
        torch.ops.flyweight.stored.default,
    }
)
_ROUND = torch.ops.flyweight.quantize_dequantize.default
_WITH_NUMBER = frozenset(getattr(aten, name).Tensor for name in ("add", "sub", "mul", "div"))
_VIEWS = frozenset(
    {aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.flatten.using_ints, aten.unflatten.int}
)
_SUMS = frozenset({aten.sum.dim_IntList, aten.mean.dim})

#: Adds an operator to a graph, before a node, on a value that has a slice of the columns.
Make = Callable[[fx.GraphModule, fx.Node, fx.Node, slice], fx.Node]


@dataclass(frozen=True)
class Followed:
    """How an operator acts on values side by side.

    Args:
        dim: along which its results stand side by side.
        widths: of the results along it.
        reads: whether it goes over all numbers; a view does not.
        make: puts the operator on a part.
    """

    dim: int
    widths: tuple[int, ...]
    reads: bool
    make: Make


def followed(body: fx.GraphModule, node: fx.Node, given: fx.Node, dim: int, widths: tuple[int, ...]) -> Followed | None:
    """Return how `node` acts on what `given` puts side by side, None where it mixes the parts or is not known.

    Args:
        node: reads `given`.
        dim: of `given`, along which parts of these widths stand side by side.
    """
    if node.op != "call_function" or list(node.all_input_nodes).count(given) != 1 or given in node.kwargs.values():
        return None
    if node.target in _WITH_NUMBER:
        return _with_constant(body, node, given, dim, widths)
    if node.args[0] is not given or given in node.args[1:]:
        return None
    if on_each_number(node, given):
        return Followed(dim, widths, True, _same_arguments(node))
    if node.target in _VIEWS:
        return _viewed(node, given, dim, widths)
    if node.target in _SUMS:
        return _summed(node, given, dim, widths)
    return _turned(node, given, dim, widths)


def on_each_number(node: fx.Node, given: fx.Node) -> bool:
    """Return whether an operator does the same to each number of `given`, and reads no other value."""
    if not node.args or node.args[0] is not given or given in node.args[1:]:
        return False
    if node.target in _WITH_NUMBER:
        return len(node.args) == 2 and isinstance(node.args[1], (int, float))
    return node.target in _EACH or (node.target is _ROUND and shape_of(node.args[1]) == ())


def _same_arguments(node: fx.Node) -> Make:
    def make(body: fx.GraphModule, before: fx.Node, value: fx.Node, columns: slice) -> fx.Node:
        return emit(body, before, node.target, value, *node.args[1:], **node.kwargs)  # type: ignore[arg-type]

    return make


def _with_constant(
    body: fx.GraphModule, node: fx.Node, given: fx.Node, dim: int, widths: tuple[int, ...]
) -> Followed | None:
    """Follow `x + c` or `c + x`: a number, or a constant of which each part takes its columns."""
    if len(node.args) != 2 or (given is node.args[0]) == (given is node.args[1]):
        return None
    place = node.args.index(given)
    other: Any = node.args[1 - place]
    if isinstance(other, (int, float)):
        return Followed(dim, widths, True, _on_either_side(node, place, lambda before, columns: other))
    whole, rank = constant(body, other), len(shape_of(given) or ())
    if whole is None or rank != len(shape_of(node) or ()):
        return None
    along = dim - (rank - whole.ndim)
    if along < 0 or whole.shape[along] == 1:
        return Followed(dim, widths, True, _on_either_side(node, place, lambda before, columns: other))
    if whole.shape[along] != sum(widths):
        return None

    def part_of(before: fx.Node, columns: slice) -> fx.Node:
        part = whole.narrow(along, columns.start, columns.stop - columns.start).contiguous()
        return read_tensor(body, unused_name(body, f"{other.target}_part"), part, before)

    return Followed(dim, widths, True, _on_either_side(node, place, part_of))


def _on_either_side(node: fx.Node, place: int, other: Callable[[fx.Node, slice], Any]) -> Make:
    def make(body: fx.GraphModule, before: fx.Node, value: fx.Node, columns: slice) -> fx.Node:
        pair = [other(before, columns)] * 2
        pair[place] = value
        return emit(body, before, node.target, *pair, **node.kwargs)  # type: ignore[arg-type]

    return make


def _viewed(node: fx.Node, given: fx.Node, dim: int, widths: tuple[int, ...]) -> Followed | None:
    """Follow a view of parts that lie one after another in each row, if it cuts none of them.

    Of (rows, columns, rest) seen as (rows, others, ends), a part of some columns is so many of the others.
    """
    shape, old = shape_of(node), shape_of(given)
    if dim != 1 or shape is None or old is None or len(shape) < 2 or not _alike(shape[0], old[0]):
        return None
    if not all(isinstance(size, int) for size in (*old[2:], *shape[1:])):
        return None
    rest, ends = math.prod(old[2:]), math.prod(shape[2:])
    if not ends or any(width * rest % ends for width in widths):
        return None

    def make(body: fx.GraphModule, before: fx.Node, value: fx.Node, columns: slice) -> fx.Node:
        count = (columns.stop - columns.start) * rest // ends
        return emit(body, before, aten.reshape.default, value, [-1, count, *shape[2:]])

    return Followed(1, tuple(width * rest // ends for width in widths), False, make)


def _alike(one: Any, other: Any) -> bool:
    """Return whether two numbers of rows are one."""
    if isinstance(one, torch.SymInt) and isinstance(other, torch.SymInt):
        return bool(one.node.expr == other.node.expr)
    return isinstance(one, int) and isinstance(other, int) and one == other


def _summed(node: fx.Node, given: fx.Node, dim: int, widths: tuple[int, ...]) -> Followed | None:
    """Follow a sum or mean over other dimensions than the parts'."""
    rank = len(shape_of(given) or ())
    dims: Any = node.args[1] if len(node.args) > 1 else None
    if not dims:
        return None
    over = {one % rank for one in dims}
    if over & {0, dim}:
        return None
    kept = node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim", False)
    after = dim if kept else dim - sum(one < dim for one in over)
    return Followed(after, widths, True, _same_arguments(node))


def _turned(node: fx.Node, given: fx.Node, dim: int, widths: tuple[int, ...]) -> Followed | None:
    """Follow what moves dimensions other than the rows."""
    rank = len(shape_of(given) or ())
    after = _place_after(node, rank, dim)
    return None if after is None else Followed(after, widths, False, _same_arguments(node))


def _place_after(node: fx.Node, rank: int, dim: int) -> int | None:
    numbers: Any = node.args[1:]
    if node.target is aten.unsqueeze.default:
        place = numbers[0] % (rank + 1)
        return None if place == 0 else dim + (place <= dim)
    if node.target is aten.squeeze.dim:
        place = numbers[0] % rank
        return None if place in (0, dim) else dim - (place < dim)
    if node.target is aten.transpose.int:
        one, other = (number % rank for number in numbers)
        return None if 0 in (one, other) else {one: other, other: one}.get(dim, dim)
    if node.target is aten.permute.default:
        order = [number % rank for number in numbers[0]]
        return order.index(dim) if order[0] == 0 else None
    return None
