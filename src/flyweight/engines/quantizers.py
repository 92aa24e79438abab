"""The operators of `graph.quantize_ops` on their way into ONNX: a node each, which `quantized_weights` writes out.

They pass the exporter whole, so that what they round is still known as a constant when the graph is finished.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from onnx.defs import OpSchema
from onnxscript.values import Op, Opset

from flyweight.graph import quantize_ops

#: Domain of the nodes between the two halves of an export; no file holds it.
DOMAIN = "flyweight"
_WHOLE = ("int8", "uint8", "int16", "int32", "int64", "float")


def _operator(name: str, inputs: Sequence[str], optional: Sequence[str] = (), **attributes: OpSchema.AttrType) -> Op:
    """Declare an operator; each input has a type of its own, and what comes out is float32."""
    option = OpSchema.FormalParameterOption
    given = [
        OpSchema.FormalParameter(one, one.upper(), param_option=option.Optional if one in optional else option.Single)
        for one in (*inputs, *optional)
    ]
    types = [f"tensor({kind})" for kind in _WHOLE]
    schema = OpSchema(
        name,
        DOMAIN,
        1,
        inputs=given,
        outputs=[OpSchema.FormalParameter("y", "Y")],
        type_constraints=[(one.type_str, types, "") for one in given] + [("Y", ["tensor(float)"], "")],
        attributes=[OpSchema.Attribute(key, kind, "") for key, kind in attributes.items()],
    )
    return Op(Opset(DOMAIN, 1), name, schema)


_INT, _TEXT = OpSchema.AttrType.INT, OpSchema.AttrType.STRING
_GRID = _operator("Grid", ("x", "scale"), ("zero_point",), axis=_INT, block=_INT, low=_INT, high=_INT)
_DYNAMIC = _operator("DynamicLinear", ("x", "weight", "scale"), ("bias",))
_STORED = _operator("Stored", ("x",), kind=_TEXT)


def _grid(x: Any, scale: Any, zero_point: Any = None, axis: int = 0, low: int = -128, high: int = 127) -> Any:
    return _GRID(x, scale, zero_point, axis=axis, block=0, low=low, high=high)


def _blocks(x: Any, scale: Any, zero_point: Any, axis: int, block: int, low: int = -8, high: int = 7) -> Any:
    return _GRID(x, scale, zero_point, axis=axis, block=block, low=low, high=high)


def _dynamic(x: Any, weight: Any, scale: Any, bias: Any = None) -> Any:
    return _DYNAMIC(x, weight, scale, bias)


def _stored(x: Any, kind: str) -> Any:
    return _STORED(x, kind=kind)


assert quantize_ops.RANGES  # importing it registers the operators below
#: Operator of PyTorch -> how the exporter writes it.
QUANTIZERS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.flyweight.quantize_dequantize.default: _grid,
    torch.ops.flyweight.quantize_dequantize_blocks.default: _blocks,
    torch.ops.flyweight.dynamic_linear.default: _dynamic,
    torch.ops.flyweight.stored.default: _stored,
}
