"""New nodes of a traced graph, with the shapes that later rules read."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from flyweight.graph.traced import tensor_of


def emit(body: fx.GraphModule, before: fx.Node, target: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
    """Add a call of an operator before a node, with its `meta["val"]` worked out, and return it."""
    with body.graph.inserting_before(before):
        node = body.graph.call_function(target, args, kwargs)
    describe(body, node)
    if "nn_module_stack" in before.meta:
        node.meta["nn_module_stack"] = before.meta["nn_module_stack"]
    return node


def describe(body: fx.GraphModule, node: fx.Node) -> None:
    """Set a node's `meta["val"]` from its arguments'."""
    mode = fake_mode(body)
    with mode, torch.no_grad():
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda one: _value(body, mode, one))
        target = body.get_submodule(str(node.target)) if node.op == "call_module" else node.target
        assert callable(target)
        node.meta["val"] = target(*args, **kwargs)


def fake_mode(body: fx.GraphModule) -> Any:
    """Return the mode that the graph's values without numbers live in."""
    for node in body.graph.find_nodes(op="placeholder"):
        return node.meta["val"].fake_mode
    raise ValueError("a graph without inputs")


def _value(body: fx.GraphModule, mode: Any, node: fx.Node) -> Any:
    value = node.meta.get("val")
    if node.op == "get_attr":
        value = tensor_of(body, str(node.target)).detach()
    if isinstance(value, Tensor) and getattr(value, "fake_mode", None) is not mode:
        return mode.from_tensor(value, static_shapes=True)
    return value


def symbols_of(size: Any) -> frozenset[str]:
    """Return the names of the open dimensions in a size: {"s0"} for 2*s0, none for 3."""
    if not isinstance(size, torch.SymInt):
        return frozenset()
    return frozenset(str(one) for one in size.node.expr.free_symbols)


def shape_of(node: Any) -> tuple[Any, ...] | None:
    """Return the shape of what a node gives, None where that is no tensor."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return tuple(value.shape) if isinstance(value, Tensor) else None
