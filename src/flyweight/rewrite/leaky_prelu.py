"""`PReLU` with one slope for all channels is a leaky ReLU: the same numbers, and far faster in ONNX Runtime.

ONNX Runtime's PRelu broadcasts its slope element by element: 500 candidates x 100 steps x 80 units take it 38 ms, with
LeakyRelu 13 ms (the whole attention of a DIN, one thread); OpenVINO and PyTorch take both alike.
"""

import torch
from torch import fx

from flyweight.rewrite.rule import Rule
from flyweight.rewrite.weights import constant

aten = torch.ops.aten


def _find(body: fx.GraphModule) -> list[fx.Node]:
    return list(body.graph.find_nodes(op="call_function", target=aten.prelu.default))


def _check(body: fx.GraphModule, node: fx.Node) -> str | None:
    slope = constant(body, node.args[1])
    if slope is None:
        return "its slope is no constant"
    if slope.numel() != 1:
        return f"it has {slope.numel()} slopes, one for each channel"
    return None


def _apply(body: fx.GraphModule, node: fx.Node) -> None:
    slope = constant(body, node.args[1])
    assert slope is not None
    node.target = aten.leaky_relu.default
    node.args = (node.args[0], float(slope))


RULE = Rule("leaky PReLU", _find, _check, _apply)
