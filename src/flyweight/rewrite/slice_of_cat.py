"""`cat([u, i])[:, a:b]` reads the parts that it falls on: the request's fields cut out again are the request's.

Models that put all embeddings side by side and take groups of fields out of them do this. A slice of one part costs no
more than before; one over several is a concatenation, and is refused where most of it has to be cut first.
"""

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


def _cut(node: fx.Node) -> tuple[Mixed, int, int] | None:
    """Return what is cut, from where, to where."""
    if node.target not in (aten.slice.Tensor, aten.select.int) or (both := mixed(handed_on(node.args[0]))) is None:
        return None
    given: list[Any] = list(node.args)
    rank, width = len(shape_of(given[0]) or ()), sum(both.widths)
    dim = given[1] if len(given) > 1 else 0
    numbers = given[2:]
    if node.kwargs or dim % rank != both.dim or any(isinstance(one, (fx.Node, torch.SymInt)) for one in numbers):
        return None
    if node.target is aten.select.int:
        start = numbers[0] % width
        return both, start, start + 1
    standard: list[Any] = [None, None, 1]
    start, stop, step = numbers + standard[len(numbers) :]
    begin, end, _ = slice(start, stop).indices(width)
    return (both, begin, end) if step == 1 and 0 < end - begin < width else None


def _pieces(both: Mixed, start: int, stop: int) -> list[tuple[fx.Node, int, int]]:
    """Return the parts between two places, with the places in each."""
    found = []
    for part, width, first in zip(both.parts, both.widths, both.starts(), strict=True):
        begin, end = max(start - first, 0), min(stop - first, width)
        if begin < end:
            found.append((part, begin, end))
    return found


def _check(body: fx.GraphModule, node: fx.Node) -> str | None:
    found = _cut(node)
    assert found is not None
    both = found[0]
    pieces = _pieces(*found)
    width = dict(zip(both.parts, both.widths, strict=True))
    cut = sum(end - begin < width[part] for part, begin, end in pieces)
    if len(pieces) > 1 and cut + 1 > len(both.of_request):
        return f"it falls on {len(pieces)} values, of which {cut} have to be cut"
    return None


def _apply(body: fx.GraphModule, node: fx.Node) -> None:
    found = _cut(node)
    assert found is not None
    both = found[0]
    made = [_piece(body, node, both, *piece) for piece in _pieces(*found)]
    out = made[0] if len(made) == 1 else emit(body, node, aten.cat.default, made, both.dim)
    node.replace_all_uses_with(out)
    body.graph.erase_node(node)


def _piece(body: fx.GraphModule, node: fx.Node, both: Mixed, part: fx.Node, begin: int, end: int) -> fx.Node:
    width = both.widths[both.parts.index(part)]

    def cut(values: list[fx.Node]) -> fx.Node:
        (value,) = values
        if node.target is aten.select.int:
            return emit(body, node, aten.select.int, value, both.dim, begin)
        return emit(body, node, aten.slice.Tensor, value, both.dim, begin, end)

    whole = node.target is aten.slice.Tensor and end - begin == width
    return part if whole else on_side(body, node, [part], cut)


RULE = Rule("slice of cat", _find, _check, _apply)
