"""Modules of PyTorch for the operators that hold weights, so that an imported model has named layers as any other has.

Each builder looks at one node and the constants it reads, and returns the module that does its work, or None where the
weights are not constants or the node is of a form that the module has not; it then runs as a plain function.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.graph.onnx_import.node import Node
from flyweight.graph.onnx_import.padding import even_padding


class AnyBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over images, sequences or plain rows; ONNX has one operator for all."""

    def _check_input_dim(self, input: Tensor) -> None:  # torch's own name
        return


@dataclass(frozen=True)
class Weights:
    """The constants of a file, and the parameters made of them so far: tied weights stay one parameter.

    Args:
        constants: by name.
        bias: name of the vector that a `MatMul` adds, by the name of its output.
    """

    constants: Mapping[str, Tensor]
    bias: Mapping[str, str] = field(default_factory=dict)
    made: dict[tuple[str, bool], nn.Parameter] = field(default_factory=dict)

    def constant(self, node: Node, place: int) -> Tensor | None:
        """Return an input of a node if it is a constant of the file."""
        return self.constants.get(node.inputs[place]) if place < len(node.inputs) else None

    def parameter(self, name: str, *, turned: bool = False) -> nn.Parameter:
        """Return the parameter of a constant, or of its transpose."""
        if (name, turned) not in self.made:
            tensor = self.constants[name]
            value = tensor.t().contiguous() if turned else tensor
            self.made[name, turned] = nn.Parameter(value, requires_grad=value.is_floating_point())
        return self.made[name, turned]


Builder = Callable[[Node, Weights], nn.Module | None]


def _fill(module: nn.Module, **names: nn.Parameter | None) -> nn.Module:
    for name, value in names.items():
        if value is not None:
            module.register_parameter(name, value)
    return module


def _gemm(node: Node, weights: Weights) -> nn.Module | None:
    weight = weights.constant(node, 1)
    plain = node.attributes.get("alpha", 1.0) == 1 == node.attributes.get("beta", 1.0)
    biased = len(node.inputs) > 2 and bool(node.inputs[2])
    bias = weights.constant(node, 2) if biased else None
    if weight is None or weight.ndim != 2 or not plain or node.attributes.get("transA", 0):
        return None
    turned = not node.attributes.get("transB", 0)
    width = weight.shape[1] if turned else weight.shape[0]
    if biased and (bias is None or bias.shape != (width,)):
        return None
    return _linear(weights, node.inputs[1], node.inputs[2] if biased else "", turned=turned)


def _matmul(node: Node, weights: Weights) -> nn.Module | None:
    weight = weights.constant(node, 1)
    if weight is None or weight.ndim != 2 or not weight.is_floating_point():
        return None
    return _linear(weights, node.inputs[1], weights.bias.get(node.outputs[0], ""), turned=True)


def _linear(weights: Weights, weight: str, bias: str, *, turned: bool) -> nn.Module:
    values = weights.parameter(weight, turned=turned)  # (out, in)
    with torch.device("meta"):
        module = nn.Linear(values.shape[1], values.shape[0], bias=bool(bias))
    return _fill(module, weight=values, bias=weights.parameter(bias) if bias else None)


def _convolution(node: Node, weights: Weights) -> nn.Module | None:
    weight = weights.constant(node, 1)
    biased = len(node.inputs) > 2 and bool(node.inputs[2])
    if weight is None or not 3 <= weight.ndim <= 5 or (biased and weights.constant(node, 2) is None):
        return None
    rank = weight.ndim - 2
    kind: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    groups = node.attributes.get("group", 1)
    with torch.device("meta"):
        module = kind(
            weight.shape[1] * groups,
            weight.shape[0],
            tuple(weight.shape[2:]),
            stride=tuple(node.attributes.get("strides", [1] * rank)),
            padding=even_padding(node, rank) or (0,) * rank,  # uneven padding is done before
            dilation=tuple(node.attributes.get("dilations", [1] * rank)),
            groups=groups,
            bias=biased,
        )
    bias = weights.parameter(node.inputs[2]) if biased else None
    return _fill(module, weight=weights.parameter(node.inputs[1]), bias=bias)


def _batch_norm(node: Node, weights: Weights) -> nn.Module | None:
    values = [weights.constant(node, place) for place in range(1, 5)]
    if any(value is None or value.ndim != 1 for value in values):
        return None
    mean, variance = (weights.constants[node.inputs[place]] for place in (3, 4))
    module = AnyBatchNorm(len(mean), eps=node.attributes.get("epsilon", 1e-5))
    module.running_mean, module.running_var = mean.clone(), variance.clone()
    return _fill(module, weight=weights.parameter(node.inputs[1]), bias=weights.parameter(node.inputs[2]))


def _layer_norm(node: Node, weights: Weights) -> nn.Module | None:
    scale = weights.constant(node, 1)
    biased = len(node.inputs) > 2 and bool(node.inputs[2])
    axis = node.attributes.get("axis", -1)
    if scale is None or axis >= 0 or scale.ndim != -axis or (biased and weights.constant(node, 2) is None):
        return None
    with torch.device("meta"):
        module = nn.LayerNorm(tuple(scale.shape), eps=node.attributes.get("epsilon", 1e-5), bias=biased)
    bias = weights.parameter(node.inputs[2]) if biased else None
    return _fill(module, weight=weights.parameter(node.inputs[1]), bias=bias)


def _embedding(node: Node, weights: Weights) -> nn.Module | None:
    table = weights.constant(node, 0)
    by_row = node.attributes.get("axis", 0) in (0, -2)
    if table is None or table.ndim != 2 or not table.is_floating_point() or not by_row or node.inputs[1] in (
        weights.constants
    ):  # fmt: skip
        return None
    with torch.device("meta"):
        module = nn.Embedding(*table.shape)
    return _fill(module, weight=weights.parameter(node.inputs[0]))


#: Where PyTorch keeps what ONNX has as gate 0, 1, ...: ONNX has z r h and i o f c, PyTorch r z n and i f g o.
_GATES = {"GRU": (1, 0, 2), "LSTM": (0, 2, 3, 1), "RNN": (0,)}


def _recurrent(node: Node, weights: Weights) -> nn.Module | None:
    inner, outer = weights.constant(node, 1), weights.constant(node, 2)  # (directions, gates x hidden, in or hidden)
    biases = weights.constant(node, 3)  # (directions, 2 x gates x hidden)
    if inner is None or outer is None or (biases is None and len(node.inputs) > 3 and node.inputs[3]):
        return None
    kinds: dict[str, Any] = {"GRU": nn.GRU, "LSTM": nn.LSTM, "RNN": nn.RNN}
    more: dict[str, Any] = {"bias": biases is not None, "bidirectional": inner.shape[0] == 2}
    more |= {"nonlinearity": "relu"} if node.attributes.get("activations", ["Tanh"])[0].lower() == "relu" else {}
    with torch.device("meta"):
        module: nn.Module = kinds[node.operator](inner.shape[2], outer.shape[2], **more)
    gates = _GATES[node.operator]

    def ordered(rows: Tensor) -> nn.Parameter:
        parts = rows.chunk(len(gates))
        return nn.Parameter(torch.cat([parts[gate] for gate in gates]).contiguous())

    for direction, end in enumerate(("", "_reverse")[: inner.shape[0]]):
        setattr(module, f"weight_ih_l0{end}", ordered(inner[direction]))
        setattr(module, f"weight_hh_l0{end}", ordered(outer[direction]))
        if biases is not None:
            first, second = biases[direction].chunk(2)
            setattr(module, f"bias_ih_l0{end}", ordered(first))
            setattr(module, f"bias_hh_l0{end}", ordered(second))
    return module


#: Operator -> what makes its module.
BUILDERS: Mapping[str, Builder] = {
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Conv": _convolution,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "Gather": _embedding,
    "GRU": _recurrent,
    "LSTM": _recurrent,
    "RNN": _recurrent,
}
