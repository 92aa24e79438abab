"""`cat([u, i])[:, a:b]` reads the parts that it falls on: the request's fields cut out again are the request's.

Models that put all embeddings side by side and take groups of fields out of them do this. A slice of one part costs no
more than before; one over several is a concatenation, and is refused where more than one of them has to be cut.
"""

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from flyweight.rewrite.concatenated import Mixed, handed_on, mixed, on_side
from flyweight.rewrite.emit import emit, shape_of
from flyweight.rewrite.rule import Rule

aten = torch.ops.aten


def _find(body: fx.GraphModule) -> list[fx.Node]:
    """Return slices and selections along the dimension in which values of both sides stand side by side."""
    return [node for node in body.graph.nodes if node.op == "call_function" and _cut(node) is not None]


@dataclass(frozen=True, eq=False)
class _Cut:
    """What is cut, from where, to where, and whether the dimension goes."""

    both: Mixed
    start: int
    stop: int
    drops: bool = False


def _cut(node: fx.Node) -> _Cut | None:
    if node.target is operator.getitem:
        return _taken_out(node)
    if node.target not in (aten.slice.Tensor, aten.select.int) or (both := mixed(handed_on(node.args[0]))) is None:
        return None
    dim, *numbers = _numbers(node)
    width = sum(both.widths)
    if node.kwargs or dim != both.dim or any(isinstance(one, (fx.Node, torch.SymInt)) for one in numbers):
        return None
    if node.target is aten.select.int:
        start = numbers[0] % width
        return _Cut(both, start, start + 1, drops=True)
    standard: list[Any] = [None, None, 1]
    first, last, step = numbers + standard[len(numbers) :]
    begin, end, _ = slice(first, last).indices(width)
    return _Cut(both, begin, end) if step == 1 and 0 < end - begin < width else None


def _taken_out(node: fx.Node) -> _Cut | None:
    """Return what one of the values is that a split gives."""
    split, place = node.args
    if not isinstance(split, fx.Node) or not isinstance(place, int) or split.kwargs:
        return None
    both = mixed(handed_on(split.args[0]))
    if both is None:
        return None
    width, count = sum(both.widths), len(split.meta["val"])
    if split.target is aten.unbind.int and _dim(split, 1) == both.dim:
        return _Cut(both, place % count, place % count + 1, drops=True)
    if split.target not in (aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default):
        return None
    if _dim(split, 2) != both.dim:
        return None
    sizes = [value.shape[both.dim] for value in split.meta["val"]]
    start = sum(sizes[: place % count])
    return _Cut(both, start, start + sizes[place % count]) if sum(sizes) == width else None


def _dim(node: fx.Node, at: int) -> int:
    """Return the dimension that is given at a place of the arguments, 0 or more."""
    dim: Any = node.args[at] if len(node.args) > at else 0
    return int(dim) % len(shape_of(node.args[0]) or (0,))


def _numbers(node: fx.Node) -> list[Any]:
    """Return the dimension, 0 or more, and what follows it."""
    return [_dim(node, 1), *node.args[2:]]


def _pieces(cut: _Cut) -> list[tuple[fx.Node, int, int]]:
    """Return the parts that a cut falls on, with its places in each."""
    found = []
    for part, width, first in zip(cut.both.parts, cut.both.widths, cut.both.starts(), strict=True):
        begin, end = max(cut.start - first, 0), min(cut.stop - first, width)
        if begin < end:
            found.append((part, begin, end))
    return found


def _check(body: fx.GraphModule, node: fx.Node) -> str | None:
    found = _cut(node)
    assert found is not None
    both = found.both
    pieces = _pieces(found)
    width = dict(zip(both.parts, both.widths, strict=True))
    cut = sum(end - begin < width[part] for part, begin, end in pieces)
    if cut > 1:
        return f"it falls on {len(pieces)} values, of which {cut} have to be cut"
    return None


def _apply(body: fx.GraphModule, node: fx.Node) -> None:
    found = _cut(node)
    assert found is not None
    made = [_piece(body, node, found, *piece) for piece in _pieces(found)]
    out = made[0] if len(made) == 1 else emit(body, node, aten.cat.default, made, found.both.dim)
    node.replace_all_uses_with(out)
    body.graph.erase_node(node)


def _piece(body: fx.GraphModule, node: fx.Node, cut: _Cut, part: fx.Node, begin: int, end: int) -> fx.Node:
    dim, width = cut.both.dim, cut.both.widths[cut.both.parts.index(part)]

    def taken(values: list[fx.Node]) -> fx.Node:
        (value,) = values
        if cut.drops and width == 1:
            return emit(body, node, aten.squeeze.dim, value, dim)
        if cut.drops:
            return emit(body, node, aten.select.int, value, dim, begin)
        return emit(body, node, aten.slice.Tensor, value, dim, begin, end)

    return part if end - begin == width and not cut.drops else on_side(body, node, [part], taken)


RULE = Rule("slice of cat", _find, _check, _apply)
