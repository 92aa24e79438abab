"""What is saved where readers of values side by side take the request's and the rows' apart."""

from typing import Any

import torch
from torch import fx

from flyweight.rewrite.concatenated import dim_of
from flyweight.rewrite.emit import shape_of
from flyweight.rewrite.followed import followed
from flyweight.rewrite.late_select import why_not_late
from flyweight.rewrite.self_products import picked_from
from flyweight.rewrite.weights import cannot_cut
from flyweight.rewrite.worth import saved

aten = torch.ops.aten
_SUMS = frozenset({aten.sum.dim_IntList, aten.mean.dim})


def gain_of_readers(
    body: fx.GraphModule, node: fx.Node, dim: int, widths: tuple[int, ...], share: float
) -> float:
    """Return microseconds that rules save behind `node`, a concatenation or what was made of one.

    Args:
        node: has parts side by side along `dim`.
        widths: of the parts, neighbours of one side as one.
        share: what part of its numbers is the request's.
    """
    return sum(max(0.0, _gain(body, reader, node, dim, widths, share)) for reader in node.users)


def _gain(
    body: fx.GraphModule, reader: fx.Node, node: fx.Node, dim: int, widths: tuple[int, ...], share: float
) -> float:
    shape = shape_of(node) or ()
    own = share * _numbers(shape)
    if reader.target is aten.linear.default and reader.args[0] is node and dim == len(shape) - 1:
        outputs = (shape_of(reader) or (0,))[-1]
        return saved(macs=own * outputs, operators=-2) if cannot_cut(reader.args[1]) is None else 0.0
    if sums_over(reader, node, dim):
        return saved(numbers=2 * own, operators=-2)
    if reader.target is aten.cat.default and dim_of(reader) == dim:
        return gain_of_readers(body, reader, dim, widths, own / _numbers(shape_of(reader) or ()))
    if dim == 1 and (pick := picked_from(body, reader, node)) is not None:
        twice = (shape_of(pick) or (0,))[-1] > shape[1] * (shape[1] + 1) // 2
        macs = own * shape[1]  # at least: of the request's vectors with each other and, both ways, with the rows'
        return saved(macs=macs, operators=-8) if why_not_late(body, pick, twice=twice) is None else 0.0
    found = followed(body, reader, node, dim, widths)
    if found is None:
        return 0.0
    behind = gain_of_readers(body, reader, found.dim, found.widths, share)
    return behind + saved(numbers=own if found.reads else 0.0, operators=1 - len(widths)) if behind else 0.0


def sums_over(reader: fx.Node, node: fx.Node, dim: int) -> bool:
    """Return whether a node sums, or takes the mean, over a dimension of another and not over the rows."""
    if reader.target not in _SUMS or reader.args[0] is not node or "dtype" in reader.kwargs:
        return False
    dims: Any = reader.args[1] if len(reader.args) > 1 else None
    over = {one % len(shape_of(node) or (0,)) for one in dims or ()}
    return dim in over and 0 not in over


def _numbers(shape: tuple[Any, ...]) -> int:
    """Return how many numbers a row has; 0 where that is open."""
    total = 1
    for size in shape[1:]:
        total *= size if isinstance(size, int) else 0
    return total
