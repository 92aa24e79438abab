"""Batch norm folded into the layer before it: in evaluation it is a scale and a shift of each channel, and so is exact.

With `s = gamma / sqrt(var + eps)`: `BN(W x + b) = (s W) x + (s (b - mean) + beta)` (Jacob et al. 2018,
arXiv:1712.05877, section 3.2).
"""

import torch
from torch import Tensor, fx

from flyweight.graph.tensors import put_tensor, read_tensor
from flyweight.graph.trace import trace
from flyweight.graph.traced import TracedModel, clean, tensor_of

aten = torch.ops.aten
#: Layers whose output channels are dimension 0 of their weight; args are (input, weight, bias, ...).
LAYERS = (aten.linear.default, aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)


def fold_batch_norm(traced: TracedModel) -> TracedModel:
    """Return a copy in which each batch norm that follows a linear or convolution layer is part of that layer.

    A batch norm stays where the layer's output or weights have another reader, or where it keeps no running mean.

    Args:
        traced: left as it is. The result is for evaluation, and for training with the statistics as they stand.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8)).eval()
        >>> folded = fold_batch_norm(trace(model, {"input": torch.rand(2, 3, 8, 8)}))
        >>> [node.name for node in folded.body.graph.nodes if node.op == "call_function"]
        ['conv2d']
    """
    folded = trace(traced, {})
    for node in folded.body.graph.find_nodes(op="call_function", target=aten.batch_norm.default):
        layer = node.args[0]
        if isinstance(layer, fx.Node) and can_fold(node, layer):
            fold_into(folded.body, node, layer)
    clean(folded.body)
    return folded


def can_fold(norm: fx.Node, layer: fx.Node) -> bool:
    """Return whether a batch norm can become part of the layer that it reads."""
    if layer.target not in LAYERS or len(layer.users) != 1 or norm.args[3] is None or norm.args[4] is None:
        return False
    if layer.target is aten.linear.default and layer.meta["val"].ndim != 2:
        return False  # of (rows, length, out) the norm's channels would be the lengths
    constants = [layer.args[1], *_bias_node(layer), *(one for one in norm.args[1:5] if one is not None)]
    own = [layer.args[1], *_bias_node(layer)]
    return all(isinstance(one, fx.Node) and one.op == "get_attr" for one in constants) and all(
        isinstance(one, fx.Node) and len(one.users) == 1 for one in own
    )


def _bias_node(layer: fx.Node) -> list[fx.Node]:
    bias = layer.args[2] if len(layer.args) > 2 else None
    return [bias] if isinstance(bias, fx.Node) else []


def fold_into(body: fx.GraphModule, norm: fx.Node, layer: fx.Node) -> None:
    """Make a batch norm part of the layer that it reads, in place."""
    gamma, beta, mean, var = (_constant(body, one) for one in norm.args[1:5])
    assert mean is not None
    assert var is not None
    eps = norm.args[7]
    assert isinstance(eps, float)
    scale = (var.double() + eps).rsqrt() * (1.0 if gamma is None else gamma.double())
    weight = layer.args[1]
    assert isinstance(weight, fx.Node)
    old = tensor_of(body, str(weight.target))
    put_tensor(body, str(weight.target), (old.double() * scale.reshape(-1, *[1] * (old.ndim - 1))).to(old.dtype))
    given = _bias_node(layer)
    bias = tensor_of(body, str(given[0].target)).double() if given else torch.zeros_like(scale)
    shifted = ((bias - mean.double()) * scale + (0.0 if beta is None else beta.double())).to(old.dtype)
    if given:
        put_tensor(body, str(given[0].target), shifted)
    else:
        name = str(weight.target).rpartition(".")[0]
        node = read_tensor(body, f"{name}.bias" if name else f"{weight.target}_bias", shifted, layer)
        layer.args = (*layer.args[:2], node, *layer.args[3:])
    norm.replace_all_uses_with(layer)
    body.graph.erase_node(norm)


def _constant(body: fx.GraphModule, node: object) -> Tensor | None:
    return tensor_of(body, str(node.target)).detach() if isinstance(node, fx.Node) else None
