"""A value repeated along the history is repeated as late as can be, and not at all where its reader broadcasts.

`Linear(expand(q))` is `expand(Linear(q))`: once a row instead of once a step. `expand(q) + k` is `q + k`.
"""

import torch
from torch import fx

from flyweight.rewrite.emit import emit, shape_of
from flyweight.rewrite.expanded import before_expand, same
from flyweight.rewrite.rule import Rule

aten = torch.ops.aten
_BROADCASTING = frozenset(
    getattr(aten, name).Tensor for name in ("add", "sub", "mul", "div", "eq", "ne", "lt", "le", "gt", "ge")
)
#: Operators on each number, or on each step's numbers, by themselves; their first argument is the value.
_EACH_STEP = frozenset(
    {
        *(getattr(aten, name).default for name in ("relu", "leaky_relu", "elu", "sigmoid", "tanh", "gelu", "silu")),
        *(getattr(aten, name).default for name in ("neg", "exp", "linear", "layer_norm", "dropout")),
        *(getattr(aten, name).Tensor for name in ("add", "sub", "mul", "div")),
    }
)


def _find(body: fx.GraphModule) -> list[fx.Node]:
    """Return operators that read something repeated along dimension 1 and could read it before that."""
    return [node for node in body.graph.nodes if node.op == "call_function" and (_broadcasts(node) or _passes(node))]


def _broadcasts(node: fx.Node) -> bool:
    """Return whether another value that a node reads has all the steps."""
    if node.target not in _BROADCASTING:
        return False
    given = node.all_input_nodes
    return any(before_expand(one) is not one for one in given) and any(
        before_expand(one) is one and _has_steps(one, node) for one in given
    )


def _has_steps(one: fx.Node, node: fx.Node) -> bool:
    shape, full = shape_of(one), shape_of(node)
    return shape is not None and full is not None and len(shape) == len(full) and same(shape[1], full[1])


def _passes(node: fx.Node) -> bool:
    """Return whether all else that a node reads is the same for each step."""
    if node.target not in _EACH_STEP or not node.args or before_expand(node.args[0]) is node.args[0]:
        return False
    rank = len(shape_of(node) or ())
    if node.target is aten.layer_norm.default and len(node.args[1]) > rank - 2:  # type: ignore[arg-type]
        return False
    rest = [one for one in node.all_input_nodes if one is not node.args[0]]
    return node.target is aten.linear.default or all(before_expand(one) is not one or _is_narrow(one) for one in rest)


def _is_narrow(weight: fx.Node) -> bool:
    """Return whether a constant has numbers for the last dimension alone, none for single steps."""
    return weight.op == "get_attr" and len(shape_of(weight) or (0, 0)) < 2


def _check(body: fx.GraphModule, node: fx.Node) -> str | None:
    return None


def _apply(body: fx.GraphModule, node: fx.Node) -> None:
    shape = shape_of(node)
    assert shape is not None
    args = fx.map_arg(node.args, before_expand)
    if _broadcasts(node):
        node.args = args
        return
    out = emit(body, node, node.target, *args, **node.kwargs)  # type: ignore[arg-type]
    # Dimension 1 alone: -1 leaves the others as they are.
    full = emit(body, node, aten.expand.default, out, [-1, shape[1], *[-1] * (len(shape) - 2)])
    node.replace_all_uses_with(full)
    body.graph.erase_node(node)


RULE = Rule("late expand", _find, _check, _apply)
