"""Values repeated along a history: (rows, 1, width) written out as (rows, steps, width)."""

from typing import Any

import torch
from torch import fx

from flyweight.rewrite.emit import shape_of

aten = torch.ops.aten
_REPEATS = frozenset(
    {aten.expand.default, aten.expand_as.default, aten.repeat.default, aten.repeat_interleave.self_int}
)


def before_expand(node: Any) -> Any:
    """Return the (rows, 1, ...) that a (rows, steps, ...) repeats along dimension 1 alone; anything else as it is.

    Example:
        >>> before_expand(node)  # of q.unsqueeze(1).expand(-1, 100, -1)  # doctest: +SKIP
        unsqueeze
    """
    if not isinstance(node, fx.Node) or node.target not in _REPEATS:
        return node
    given = node.args[0]
    small, large = shape_of(given), shape_of(node)
    if small is None or large is None or len(small) != len(large) or len(small) < 3:
        return node
    others = zip((small[0], *small[2:]), (large[0], *large[2:]), strict=True)
    return given if same(small[1], 1) and all(same(a, b) for a, b in others) else node


def same(left: Any, right: Any) -> bool:
    """Return whether two sizes are one for certain: equal numbers, or the same expression."""
    if isinstance(left, torch.SymInt) or isinstance(right, torch.SymInt):
        return (
            isinstance(left, torch.SymInt)
            and isinstance(right, torch.SymInt)
            and bool(left.node.expr == right.node.expr)
        )
    return bool(left == right)
