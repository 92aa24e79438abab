"""Batch norm as part of the layer before it, or of the linear layers after it: in evaluation a scale and a shift.

With `s = gamma / sqrt(var + eps)` and `t = beta - s mean`, and a linear layer after it, `W (s x + t) + b` is
`(W s) x + (W t + b)`: a factor for each column of the weight. After a layer, see `graph/fold_batch_norm.py`.
"""

import torch
from torch import Tensor, fx

from flyweight.graph.fold_batch_norm import can_fold, fold_into
from flyweight.graph.tensors import read_tensor
from flyweight.graph.traced import tensor_of
from flyweight.rewrite.emit import shape_of
from flyweight.rewrite.rule import Rule
from flyweight.rewrite.weights import constant, unused_name

aten = torch.ops.aten


def _find(body: fx.GraphModule) -> list[fx.Node]:
    return list(body.graph.find_nodes(op="call_function", target=aten.batch_norm.default))


def _check(body: fx.GraphModule, node: fx.Node) -> str | None:
    layer = node.args[0]
    if isinstance(layer, fx.Node) and can_fold(node, layer):
        return None
    if any(constant(body, one) is None for one in node.args[3:5]):
        return "it keeps no running mean and variance"
    if any(one is not None and constant(body, one) is None for one in node.args[1:3]):
        return "its scale or shift is worked out"
    if len(shape_of(node) or ()) != 2:
        return "the layer before it cannot take it in, and those after it see more than one row of channels at once"
    for user in node.users:
        if user.target is not aten.linear.default or user.args[0] is not node:
            return f"{user.name} reads it too and is no linear layer"
        if constant(body, user.args[1]) is None:
            return f"the weight of {user.name} is rounded to a grid, and its columns would leave it"
        if len(user.args) > 2 and user.args[2] is not None and constant(body, user.args[2]) is None:
            return f"the bias of {user.name} is worked out"
    return None


def _apply(body: fx.GraphModule, node: fx.Node) -> None:
    layer = node.args[0]
    assert isinstance(layer, fx.Node)
    if can_fold(node, layer):
        fold_into(body, node, layer)
        return
    scale, shift = _scale_and_shift(body, node)
    for user in list(node.users):
        _take_in(body, user, scale, shift)
        user.args = (layer, *user.args[1:])
    body.graph.erase_node(node)


def _scale_and_shift(body: fx.GraphModule, norm: fx.Node) -> tuple[Tensor, Tensor]:
    """Return s and t of `norm(x) = s x + t`, (channels,) float64."""
    gamma, beta, mean, var = (constant(body, one) for one in norm.args[1:5])
    eps = norm.args[7]
    assert mean is not None
    assert var is not None
    assert isinstance(eps, float)
    scale = (var.double() + eps).rsqrt() * (1.0 if gamma is None else gamma.double())
    return scale, (0.0 if beta is None else beta.double()) - scale * mean.double()


def _take_in(body: fx.GraphModule, linear: fx.Node, scale: Tensor, shift: Tensor) -> None:
    """Give a linear layer a weight and a bias of its own, which take the norm's place."""
    weight = linear.args[1]
    assert isinstance(weight, fx.Node)
    old = tensor_of(body, str(weight.target)).detach()
    bias = constant(body, linear.args[2] if len(linear.args) > 2 else None)
    moved = old.double() @ shift + (0.0 if bias is None else bias.double())
    name = str(weight.target)
    new = read_tensor(body, unused_name(body, f"{name}_normed"), (old.double() * scale).to(old.dtype), linear)
    added = read_tensor(body, unused_name(body, f"{name}_normed_bias"), moved.to(old.dtype), linear)
    linear.args = (linear.args[0], new, added)


RULE = Rule("fold norms", _find, _check, _apply)
