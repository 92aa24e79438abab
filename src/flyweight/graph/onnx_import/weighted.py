"""ONNX operators that hold weights, run through their module where they have one: products, convolutions, norms."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from flyweight.graph.onnx_import.elementwise import Handler
from flyweight.graph.onnx_import.node import Call
from flyweight.graph.onnx_import.padding import padded


def _gemm(call: Call) -> Tensor:
    x = call.tensor(0)
    if call.layer is not None:
        layered: Tensor = call.layer(x)
        return layered
    x = x.t() if call.attribute("transA", 0) else x
    b = call.tensor(1)
    weight = b if call.attribute("transB", 0) else b.t()  # (out, in)
    alpha, beta = call.attribute("alpha", 1.0), call.attribute("beta", 1.0)
    bias = call.tensor(2) if call.given(2) else None
    if alpha == 1 and (bias is None or (beta == 1 and bias.shape == (weight.shape[0],))):
        return F.linear(x, weight, bias)
    product: Tensor = alpha * F.linear(x, weight)
    return product if bias is None else product + beta * bias


def _matmul(call: Call) -> Tensor:
    if call.layer is not None:
        layered: Tensor = call.layer(call.tensor(0))
        return layered
    return torch.matmul(call.tensor(0), call.tensor(1))


def _convolution(call: Call) -> Tensor:
    x = call.tensor(0)
    weight = getattr(call.layer, "weight", None) if call.layer is not None else call.tensor(1)
    assert isinstance(weight, Tensor)
    rank = weight.ndim - 2
    x, pads = padded(call, x, tuple(weight.shape[2:]), 0.0)
    if call.layer is not None:  # which was made with the even padding
        layered: Tensor = call.layer(x)
        return layered
    function: Any = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    bias = call.tensor(2) if call.given(2) else None
    strides, dilations = call.attribute("strides", [1] * rank), call.attribute("dilations", [1] * rank)
    result: Tensor = function(x, weight, bias, strides, pads, dilations, call.attribute("group", 1))
    return result


def _transposed(call: Call) -> Tensor:
    x, weight = call.tensor(0), call.tensor(1)
    rank = weight.ndim - 2
    pads = call.attribute("pads", [0] * (2 * rank))
    if call.attribute("auto_pad", "NOTSET") != "NOTSET" or list(pads[:rank]) != list(pads[rank:]):
        call.node.refuse("padding that differs between the two sides.")
    if call.attribute("output_shape") is not None:
        call.node.refuse("output_shape; give output_padding.")
    function: Any = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
    strides, dilations = call.attribute("strides", [1] * rank), call.attribute("dilations", [1] * rank)
    more, groups = call.attribute("output_padding", [0] * rank), call.attribute("group", 1)
    bias = call.tensor(2) if call.given(2) else None
    result: Tensor = function(x, weight, bias, strides, pads[:rank], more, groups, dilations)
    return result


def _batch_norm(call: Call) -> Tensor:
    x = call.tensor(0)
    if call.attribute("training_mode", 0):
        call.node.refuse("training_mode = 1; export the model in evaluation mode.")
    if call.layer is not None:
        layered: Tensor = call.layer(x)
        return layered
    scale, bias, mean, variance = (call.tensor(place) for place in range(1, 5))
    return F.batch_norm(x, mean, variance, scale, bias, False, 0.0, call.attribute("epsilon", 1e-5))


def _layer_norm(call: Call) -> Tensor:
    x = call.tensor(0)
    if call.layer is not None:
        layered: Tensor = call.layer(x)
        return layered
    axis = call.attribute("axis", -1) % x.ndim
    y = F.layer_norm(x, list(x.shape[axis:]), eps=call.attribute("epsilon", 1e-5)) * call.tensor(1)
    return y + call.tensor(2) if call.given(2) else y


def _instance_norm(call: Call) -> Tensor:
    x, scale, bias = (call.tensor(place) for place in range(3))
    return F.instance_norm(x, weight=scale, bias=bias, eps=call.attribute("epsilon", 1e-5))


def _group_norm(call: Call) -> Tensor:
    x, scale, bias = (call.tensor(place) for place in range(3))
    groups, eps = call.attribute("num_groups"), call.attribute("epsilon", 1e-5)
    if len(scale) == groups != x.shape[1]:  # before operator set 21 a scale for each group
        scale, bias = (one.repeat_interleave(x.shape[1] // groups) for one in (scale, bias))
    return F.group_norm(x, groups, scale, bias, eps)


def _root_norm(call: Call) -> Tensor:
    x = call.tensor(0)
    axis = call.attribute("axis", -1) % x.ndim
    return F.rms_norm(x, list(x.shape[axis:]), call.tensor(1), call.attribute("epsilon", 1e-5))


def _local_norm(call: Call) -> Tensor:
    alpha, beta, bias = call.attribute("alpha", 1e-4), call.attribute("beta", 0.75), call.attribute("bias", 1.0)
    return F.local_response_norm(call.tensor(0), call.attribute("size"), alpha, beta, bias)


def _lp_norm(call: Call) -> Tensor:
    return F.normalize(call.tensor(0), call.attribute("p", 2), call.attribute("axis", -1))


def _einsum(call: Call) -> Tensor:
    return torch.einsum(call.attribute("equation"), *(call.tensor(place) for place in range(len(call.values))))


def _softmax(function: Any) -> Handler:
    def run(call: Call) -> Tensor:
        x = call.tensor(0)
        if call.node.opset >= 13:
            result: Tensor = function(x, call.attribute("axis", -1))
            return result
        axis = call.attribute("axis", 1) % x.ndim  # before: over all dimensions from `axis` on
        if axis == x.ndim - 1:
            return torch.as_tensor(function(x, axis))
        flat: Tensor = function(x.flatten(axis), axis)
        return flat.reshape(*x.shape[:axis], *x.shape[axis:])

    return run


def _recurrent(call: Call) -> tuple[Tensor, ...]:
    layer, hidden = call.layer, call.attribute("hidden_size")
    if layer is None:
        call.node.refuse("weights that are not constants.")
    _check_recurrent(call)
    x = call.tensor(0)  # (length, rows, in)
    states = [call.tensor(place) for place in (5, 6) if call.given(place)]
    lstm = call.node.operator == "LSTM"
    start = None if not states else (states[0], states[1]) if lstm else states[0]
    y, last = layer(x, start)
    directions = y.shape[-1] // hidden if hidden else 1
    whole = y.unflatten(-1, (directions, -1)).transpose(1, 2)  # (length, directions, rows, hidden)
    return (whole, *last) if lstm else (whole, last)


def _check_recurrent(call: Call) -> None:
    node = call.node
    usual = {"GRU": ["sigmoid", "tanh"], "LSTM": ["sigmoid", "tanh", "tanh"], "RNN": ["tanh"]}[node.operator]
    seen = [name.lower() for name in call.attribute("activations", usual)]
    plain = seen[: len(usual)] == usual or (node.operator == "RNN" and seen[:1] == ["relu"])
    if not plain or call.attribute("clip") is not None or call.attribute("direction", "forward") == "reverse":
        node.refuse(f"activations {seen}, a clip or direction 'reverse', which torch.nn.{node.operator} has not.")
    if call.attribute("layout", 0) or call.given(4) or call.given(7):
        node.refuse("layout 1, lengths of sequences or peepholes.")
    if node.operator == "GRU" and not call.attribute("linear_before_reset", 0):
        node.refuse("linear_before_reset = 0, which torch.nn.GRU has not.")


WEIGHTED: Mapping[str, Handler] = {
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Einsum": _einsum,
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "RMSNormalization": _root_norm,
    "LRN": _local_norm,
    "LpNormalization": _lp_norm,
    "Softmax": _softmax(torch.softmax),
    "LogSoftmax": _softmax(torch.log_softmax),
    "GRU": _recurrent,
    "LSTM": _recurrent,
    "RNN": _recurrent,
}
