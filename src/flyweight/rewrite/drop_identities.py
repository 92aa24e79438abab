"""Operators that change nothing are dropped, and views of views made one.

Dropout in evaluation, `x + 0`, `x * 1`, a view or an expansion to the shape that is there, a concatenation of one
tensor, a slice of everything, a cast to the type that is there or by way of a wider one.
"""

import math
from typing import Any

import torch
from torch import Tensor, fx

from flyweight.rewrite.emit import emit, shape_of
from flyweight.rewrite.expanded import same
from flyweight.rewrite.rule import Rule

aten = torch.ops.aten
_VIEWS = frozenset(
    {
        aten.view.default,
        aten.reshape.default,
        aten._unsafe_view.default,
        aten.flatten.using_ints,
        aten.unflatten.int,
        aten.squeeze.default,
        aten.squeeze.dim,
        aten.squeeze.dims,
        aten.unsqueeze.default,
    }
)
#: Of the same shape, these give what they were given.
_COPIES = _VIEWS | {aten.expand.default, aten.expand_as.default, aten.repeat.default, aten.slice.Tensor}
_ALWAYS = frozenset({aten.detach.default, aten.alias.default, aten.lift_fresh.default})
#: By operator, the number that changes nothing.
_NEUTRAL: dict[Any, float] = {
    aten.add.Tensor: 0.0,
    aten.sub.Tensor: 0.0,
    aten.mul.Tensor: 1.0,
    aten.div.Tensor: 1.0,
    aten.pow.Tensor_Scalar: 1.0,
}
_CASTS = frozenset({aten.to.dtype, aten._to_copy.default})


def _find(body: fx.GraphModule) -> list[fx.Node]:
    """Return operators that change nothing, and views or casts of what was viewed or cast a moment before."""
    called = [node for node in body.graph.nodes if node.op == "call_function"]
    return [node for node in called if _given(node) is not None or _source(node) is not None]


def _given(node: fx.Node) -> fx.Node | None:
    """Return what a node hands on as it was given it; None for a node that does something."""
    if node.target is aten.cat.default:
        (one, *others) = node.all_input_nodes
        parts: Any = node.args[0]
        return one if not others and len(parts) == 1 else None
    given = node.args[0] if node.args else None
    if not isinstance(given, fx.Node) or not _alike(given, node):
        return None
    if node.target in _ALWAYS or node.target in _COPIES or _is_plain_cast(node):
        return given
    if node.target in (aten.dropout.default, aten.dropout_.default):
        return None if node.args[2] else given
    if node.target is aten.permute.default:
        order: Any = node.args[1]
        return given if [dim % len(order) for dim in order] == list(range(len(order))) else None
    if node.target in _NEUTRAL and not node.kwargs and len(node.args) == 2:
        number = node.args[1]
        return given if isinstance(number, (int, float)) and number == _NEUTRAL[node.target] else None
    return None


def _alike(one: fx.Node, other: fx.Node) -> bool:
    """Whether two nodes give tensors of one type and one shape, for any number of rows."""
    left, right = one.meta.get("val"), other.meta.get("val")
    if not isinstance(left, Tensor) or not isinstance(right, Tensor) or left.dtype != right.dtype:
        return False
    return left.ndim == right.ndim and all(same(a, b) for a, b in zip(left.shape, right.shape, strict=True))


def _is_plain_cast(node: fx.Node) -> bool:
    if node.target is aten.to.dtype:
        return len(node.args) == 2 and not node.kwargs
    return node.target is aten._to_copy.default and set(node.kwargs) == {"dtype"}


def _source(node: fx.Node) -> fx.Node | None:
    """Return what a view or cast could read instead of what it reads; None for all else."""
    given = node.args[0] if node.args else None
    if not isinstance(given, fx.Node) or not given.args or not isinstance(given.args[0], fx.Node):
        return None
    if node.target in _VIEWS and given.target in _VIEWS:
        shape = shape_of(node) or ()
        fixed = [size for size in shape if not isinstance(size, torch.SymInt)]
        return given.args[0] if len(fixed) >= len(shape) - 1 and math.prod(fixed) else None
    if _is_plain_cast(node) and _is_plain_cast(given) and _widens(given.args[0], given):
        return given.args[0]
    return None


def _widens(narrow: fx.Node, wide: fx.Node) -> bool:
    """Whether a cast keeps every value as it is, so that it may be left out before another one."""
    one, other = narrow.meta["val"].dtype, wide.meta["val"].dtype
    if one.is_floating_point != other.is_floating_point or torch.bool in (one, other):
        return False
    if {one, other} == {torch.float16, torch.bfloat16}:
        return False
    return bool(torch.promote_types(one, other) == other)


def _check(body: fx.GraphModule, node: fx.Node) -> str | None:
    given = _given(node) or _source(node)
    assert given is not None
    for user in [*node.users, *given.users]:
        if getattr(getattr(user.target, "_schema", None), "is_mutable", False):
            return f"{user.name} writes to it in place"
    return None


def _apply(body: fx.GraphModule, node: fx.Node) -> None:
    given = _given(node)
    if given is None:
        source = _source(node)
        assert source is not None
        if _is_plain_cast(node):
            node.args = (source, *node.args[1:])
            return
        sizes = [-1 if isinstance(size, torch.SymInt) else size for size in shape_of(node) or ()]
        given = emit(body, node, aten.reshape.default, source, sizes)
    node.replace_all_uses_with(given)
    body.graph.erase_node(node)


RULE = Rule("drop identities", _find, _check, _apply)
