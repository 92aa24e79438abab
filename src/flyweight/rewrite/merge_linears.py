"""Linear layers that read the same values become one, whose outputs are cut apart.

Cutting copies every number, so it pays for few numbers only. Measured on one thread, two and three layers of 16 or 400
inputs, one operator behind each: for one row OpenVINO gains 10 to 25 % and ONNX Runtime nothing; for 500 rows both gain
up to 20 % with one output each, and lose up to 36 % from 8 outputs on.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from flyweight.graph.tensors import read_tensor
from flyweight.graph.traced import tensor_of
from flyweight.rewrite.emit import emit, shape_of
from flyweight.rewrite.rule import Rule
from flyweight.rewrite.table_lookups import before_spread
from flyweight.rewrite.weights import constant, unused_name

aten = torch.ops.aten
_ROUND = torch.ops.flyweight.quantize_dequantize.default
_STORED = torch.ops.flyweight.stored.default
#: Layers that run for each row are merged up to so many outputs each.
NARROW = 4


def _find(body: fx.GraphModule) -> list[fx.Node]:
    """Return the first linear layer of each group that reads the same values."""
    return [group[0] for group in _groups(body)]


def _groups(body: fx.GraphModule) -> list[list[fx.Node]]:
    groups: dict[Any, list[fx.Node]] = {}
    for node in body.graph.find_nodes(op="call_function", target=aten.linear.default):
        groups.setdefault(node.args[0], []).append(node)
    return [group for group in groups.values() if len(group) > 1]


def _group_of(body: fx.GraphModule, node: fx.Node) -> list[fx.Node]:
    return next(group for group in _groups(body) if group[0] is node)


def _check(body: fx.GraphModule, node: fx.Node) -> str | None:
    group = _group_of(body, node)
    names = ", ".join(one.name for one in group)
    if len({_form(body, one.args[1]) for one in group}) > 1 or _form(body, node.args[1]) is None:
        return f"the weights of {names} are not rounded in the same way, with a scale for each output"
    if any(_bias(one) is not None and constant(body, _bias(one)) is None for one in group):
        return f"a bias of {names} is worked out"
    widest = max(_outputs(one) for one in group)
    once = node in before_spread(body.graph) and len(shape_of(node) or ()) <= 2
    if widest > NARROW and not once:
        return f"cutting apart the {widest} outputs of a layer for every row costs more than a layer less saves"
    return None


def _bias(linear: fx.Node) -> Any:
    return linear.args[2] if len(linear.args) > 2 else None


def _outputs(linear: fx.Node) -> int:
    return int((shape_of(linear) or (0,))[-1])


def _form(body: fx.GraphModule, weight: Any) -> tuple[Any, ...] | None:
    """Return how a weight comes from its constant, None where such weights cannot be put on top of each other."""
    if not isinstance(weight, fx.Node):
        return None
    if weight.op == "get_attr":
        return ("constant",)
    if weight.target is _STORED:
        inner = _form(body, weight.args[0])
        return None if inner is None else (*inner, *weight.args[1:])
    if weight.target is not _ROUND:
        return None
    _, scale, zero, axis, low, high = _round_args(weight)
    inner, found = _form(body, weight.args[0]), constant(body, scale)
    if inner is None or found is None or found.ndim != 1 or axis not in (0, -2):
        return None
    if zero is not None and constant(body, zero) is None:
        return None
    return (*inner, "rounded", zero is None, low, high)


def _round_args(node: fx.Node) -> tuple[Any, ...]:
    """Return (x, scale, zero_point, axis, low, high) of a rounding, however they are given."""
    given = dict(zip(("x", "scale", "zero_point", "axis", "low", "high"), node.args, strict=False)) | node.kwargs
    standard: dict[str, Any] = {"zero_point": None, "axis": 0, "low": -128, "high": 127}
    return tuple((standard | given)[name] for name in ("x", "scale", "zero_point", "axis", "low", "high"))


def _apply(body: fx.GraphModule, node: fx.Node) -> None:
    group = _group_of(body, node)
    biases = [constant(body, _bias(one)) for one in group]
    weight = _on_top(body, [one.args[1] for one in group], node)
    bias = None
    if any(one is not None for one in biases):
        pieces = [
            torch.zeros(_outputs(one), dtype=node.meta["val"].dtype) if own is None else own
            for one, own in zip(group, biases, strict=True)
        ]
        bias = _read(body, node, "bias", torch.cat(pieces))
    merged = emit(body, node, aten.linear.default, node.args[0], weight, bias)
    start = 0
    for one in group:
        stop = start + _outputs(one)
        one.replace_all_uses_with(emit(body, node, aten.slice.Tensor, merged, -1, start, stop))
        start = stop
    for one in group:
        body.graph.erase_node(one)


def _on_top(body: fx.GraphModule, weights: Sequence[Any], before: fx.Node) -> fx.Node:
    """Return a node, before another one, that gives the weights on top of each other, rounded as they are."""
    first = weights[0]
    if first.op == "get_attr":
        return _read(body, before, "weight", torch.cat([tensor_of(body, str(one.target)).detach() for one in weights]))
    inner = _on_top(body, [one.args[0] for one in weights], before)
    if first.target is _STORED:
        return emit(body, before, _STORED, inner, *first.args[1:])
    every = [_round_args(one) for one in weights]
    scale = _read(body, before, "scale", torch.cat([tensor_of(body, str(one[1].target)) for one in every]))
    zero = None
    if every[0][2] is not None:
        zero = _read(body, before, "zero_point", torch.cat([tensor_of(body, str(one[2].target)) for one in every]))
    return emit(body, before, _ROUND, inner, scale, zero, 0, *every[0][4:])


def _read(body: fx.GraphModule, before: fx.Node, name: str, tensor: Tensor) -> fx.Node:
    return read_tensor(body, unused_name(body, f"merged.{name}"), tensor.detach(), before)


RULE = Rule("merge linears", _find, _check, _apply)
