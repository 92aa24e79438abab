"""Parts of a layer's weight as graphs hold it: a constant, or a constant that is rounded on its way."""

import torch
from torch import Tensor, fx

import flyweight.graph.quantize_ops  # noqa: F401 - defines the operators below
from flyweight.graph.tensors import read_tensor
from flyweight.graph.traced import tensor_of
from flyweight.rewrite.emit import describe

_ROUND = torch.ops.flyweight.quantize_dequantize.default
_STORED = torch.ops.flyweight.stored.default


def cannot_cut(weight: object) -> str | None:
    """Return why columns cannot be taken of a weight, None when they can.

    They can of a constant (out, in), and of one rounded with one scale, or with one for each output.
    """
    if not isinstance(weight, fx.Node):
        return "its weight is no part of the graph"
    if weight.op == "get_attr":
        return None
    if weight.target is _STORED:
        return cannot_cut(weight.args[0])
    if weight.target is not _ROUND:
        return f"its weight is worked out by {weight.target}"
    axis = weight.kwargs.get("axis", weight.args[3] if len(weight.args) > 3 else 0)
    scale = weight.args[1]
    whole = isinstance(scale, fx.Node) and scale.meta["val"].ndim == 0
    if not whole and axis not in (0, -2):
        return "its weight has a scale for each input"
    return cannot_cut(weight.args[0])


def columns_of(body: fx.GraphModule, weight: fx.Node, columns: list[int], before: fx.Node, name: str) -> fx.Node:
    """Return a node, before another one, that gives `weight[:, columns]`, rounded as the whole weight is.

    Args:
        name: of the new constant; a number is added where it is taken.
    """
    if weight.op == "get_attr":
        return read_tensor(body, unused_name(body, name), tensor_of(body, str(weight.target))[:, columns], before)
    source = weight.args[0]
    assert isinstance(source, fx.Node)
    part = columns_of(body, source, columns, before, name)
    with body.graph.inserting_before(before):
        node = body.graph.node_copy(weight, lambda one: part if one is source else one)
    describe(body, node)
    return node


def unused_name(body: fx.GraphModule, name: str) -> str:
    """Return a dotted name that no tensor has yet: `name`, or `name_2` ..."""
    taken = {found for found, _ in [*body.named_parameters(), *body.named_buffers()]}
    number, free = 2, name
    while free in taken:
        number, free = number + 1, f"{name}_{number}"
    return free


def constant(body: fx.GraphModule, node: object) -> Tensor | None:
    """Return the tensor that a node reads, None where it is no plain constant."""
    if isinstance(node, fx.Node) and node.op == "get_attr":
        return tensor_of(body, str(node.target)).detach()
    return None
