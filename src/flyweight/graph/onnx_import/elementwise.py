"""ONNX operators that act on each number alone."""

import functools
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from flyweight.graph.onnx_import.node import Call, Known, Value, known

Handler = Callable[[Call], Any]


def _on_known(function: Callable[..., Any], *arrays: Known) -> Known:
    """Apply a function of Python numbers to arrays of them, with broadcasting."""
    shape = np.broadcast_shapes(*(array.shape for array in arrays))
    rows = zip(*(list(np.broadcast_to(array, shape).reshape(-1)) for array in arrays), strict=True)
    return known([function(*row) for row in rows]).reshape(shape)


def _divided(a: Any, b: Any) -> Any:
    """Divide as ONNX does: whole numbers are cut towards zero; sizes are never negative."""
    if isinstance(a, (float, torch.SymFloat)) or isinstance(b, (float, torch.SymFloat)):
        return a / b
    if isinstance(a, int) and isinstance(b, int):
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    return a // b


def _divide(a: Any, b: Any) -> Tensor:
    whole = not any(value.is_floating_point() if isinstance(value, Tensor) else isinstance(value, float)
                    for value in (a, b))  # fmt: skip
    return torch.div(a, b, rounding_mode="trunc" if whole else None)


def _power(a: Any, b: Any) -> Tensor:
    result: Tensor = torch.pow(a, b)
    return result.to(a.dtype) if isinstance(a, Tensor) else result


def _binary(tensors: Callable[[Any, Any], Any], numbers: Callable[[Any, Any], Any] | None = None) -> Handler:
    """Return what runs an operator on two inputs, where both are known as Python numbers."""

    def run(call: Call) -> Value:
        if numbers is not None and call.all_known():
            return _on_known(numbers, call.known(0), call.known(1))
        a, b = call.operand(0), call.operand(1)
        if not isinstance(a, Tensor) and not isinstance(b, Tensor):
            a = call.tensor(0)
        result: Tensor = tensors(a, b)
        return result

    return run


def _unary(tensors: Callable[..., Any], numbers: Callable[[Any], Any] | None = None) -> Handler:
    def run(call: Call) -> Value:
        if numbers is not None and call.all_known():
            return _on_known(numbers, call.known(0))
        result: Tensor = tensors(call.tensor(0))
        return result

    return run


def _variadic(pair: Callable[[Tensor, Tensor], Tensor], numbers: Callable[[Any, Any], Any]) -> Handler:
    def run(call: Call) -> Value:
        places = range(len(call.values))
        if call.all_known():
            return functools.reduce(functools.partial(_on_known, numbers), [call.known(place) for place in places])
        return functools.reduce(pair, [call.tensor(place) for place in places])

    return run


def _mean(call: Call) -> Tensor:
    return functools.reduce(torch.add, [call.tensor(place) for place in range(len(call.values))]) / len(call.values)


def _where(call: Call) -> Value:
    if call.all_known():
        return _on_known(lambda yes, a, b: a if yes else b, call.known(0), call.known(1), call.known(2))
    a, b = call.operand(1), call.operand(2)
    return torch.where(call.tensor(0), a, b)


def _mod(call: Call) -> Value:
    if call.all_known() and not call.attribute("fmod", 0):
        return _on_known(operator.mod, call.known(0), call.known(1))
    return (torch.fmod if call.attribute("fmod", 0) else torch.remainder)(call.tensor(0), call.operand(1))


def _clip(call: Call) -> Tensor:
    low = call.operand(1) if call.given(1) else call.attribute("min")
    high = call.operand(2) if call.given(2) else call.attribute("max")
    x = call.tensor(0)
    return x if low is None and high is None else torch.clamp(x, low, high)


#: numpy's or our names of ONNX's element types, by number (onnx.TensorProto.DataType).
TYPES: dict[int, torch.dtype] = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64, 9: torch.bool,
    10: torch.float16, 11: torch.float64, 16: torch.bfloat16,
}  # fmt: skip


def _cast(call: Call) -> Value:
    to = int(call.attribute("to", 0))
    if to not in TYPES:
        call.node.refuse(f"element type {to} is not one that it can cast to.")
    kind = TYPES[to]
    if call.all_known() and kind in (torch.int64, torch.int32, torch.float32, torch.bool):
        convert: Callable[[Any], Any] = _real if kind == torch.float32 else bool if kind == torch.bool else _whole
        return _on_known(convert, call.known(0))
    return call.tensor(0).to(kind)


def _real(number: Any) -> Any:
    return number * 1.0 if isinstance(number, torch.SymInt) else float(number)


def _whole(number: Any) -> Any:
    return number if isinstance(number, torch.SymInt) else math.trunc(number)


def _cast_like(call: Call) -> Tensor:
    return call.tensor(0).to(call.tensor(1).dtype)


def _leaky(call: Call) -> Tensor:
    return F.leaky_relu(call.tensor(0), call.attribute("alpha", 0.01))


def _prelu(call: Call) -> Tensor:
    x = call.tensor(0)
    return torch.where(x < 0, x * call.operand(1), x)


def _gelu(call: Call) -> Tensor:
    return torch.as_tensor(F.gelu(call.tensor(0), approximate=call.attribute("approximate", "none")))


def _hard_sigmoid(call: Call) -> Tensor:
    x, alpha, beta = call.tensor(0), call.attribute("alpha", 0.2), call.attribute("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return F.hardsigmoid(x)
    return torch.clamp(x * alpha + beta, 0, 1)


def _selu(call: Call) -> Tensor:
    alpha, gamma = call.attribute("alpha", 1.6732632423543772), call.attribute("gamma", 1.0507009873554805)
    x = call.tensor(0)
    bent: Tensor = gamma * torch.where(x > 0, x, alpha * (torch.exp(x) - 1))
    return bent


def _is_infinite(call: Call) -> Tensor:
    x = call.tensor(0)
    high, low = bool(call.attribute("detect_positive", 1)), bool(call.attribute("detect_negative", 1))
    return torch.isinf(x) if high and low else torch.isposinf(x) if high else torch.isneginf(x)


def _same(call: Call) -> Value:
    return call.value(0)


def _dropout(call: Call) -> Value:
    if call.given(2) and bool(call.known(2).item()):
        call.node.refuse("training_mode = true; export the model in evaluation mode.")
    return call.value(0)


ELEMENTWISE: Mapping[str, Handler] = {
    "Add": _binary(torch.add, operator.add),
    "Sub": _binary(operator.sub, operator.sub),
    "Mul": _binary(torch.mul, operator.mul),
    "Div": _binary(_divide, _divided),
    "Pow": _binary(_power, operator.pow),
    "Mod": _mod,
    "Equal": _binary(operator.eq, lambda a, b: bool(a == b)),
    "Less": _binary(operator.lt, lambda a, b: bool(a < b)),
    "LessOrEqual": _binary(operator.le, lambda a, b: bool(a <= b)),
    "Greater": _binary(operator.gt, lambda a, b: bool(a > b)),
    "GreaterOrEqual": _binary(operator.ge, lambda a, b: bool(a >= b)),
    "And": _binary(torch.logical_and, lambda a, b: a and b),
    "Or": _binary(torch.logical_or, lambda a, b: a or b),
    "Xor": _binary(torch.logical_xor, operator.ne),
    "Not": _unary(torch.logical_not, operator.not_),
    "BitwiseAnd": _binary(torch.bitwise_and, operator.and_),
    "BitwiseOr": _binary(torch.bitwise_or, operator.or_),
    "BitwiseXor": _binary(torch.bitwise_xor, operator.xor),
    "BitwiseNot": _unary(torch.bitwise_not, operator.invert),
    "Max": _variadic(torch.maximum, torch.sym_max),
    "Min": _variadic(torch.minimum, torch.sym_min),
    "Sum": _variadic(torch.add, operator.add),
    "Mean": _mean,
    "Where": _where,
    "Clip": _clip,
    "Cast": _cast,
    "CastLike": _cast_like,
    "Identity": _same,
    "Dropout": _dropout,
    "Abs": _unary(torch.abs, abs),
    "Neg": _unary(torch.neg, operator.neg),
    "Sign": _unary(torch.sign),
    "Floor": _unary(torch.floor, lambda x: float(math.floor(x))),
    "Ceil": _unary(torch.ceil, lambda x: float(math.ceil(x))),
    "Round": _unary(torch.round),
    "Reciprocal": _unary(torch.reciprocal, lambda x: 1 / x),
    "Sqrt": _unary(torch.sqrt, lambda x: x**0.5),
    "Exp": _unary(torch.exp),
    "Log": _unary(torch.log),
    "Erf": _unary(torch.erf),
    "Sin": _unary(torch.sin),
    "Cos": _unary(torch.cos),
    "Tan": _unary(torch.tan),
    "Asin": _unary(torch.asin),
    "Acos": _unary(torch.acos),
    "Atan": _unary(torch.atan),
    "Sinh": _unary(torch.sinh),
    "Cosh": _unary(torch.cosh),
    "Tanh": _unary(torch.tanh),
    "IsNaN": _unary(torch.isnan),
    "IsInf": _is_infinite,
    "Relu": _unary(F.relu),
    "Sigmoid": _unary(torch.sigmoid),
    "Softplus": _unary(lambda x: F.softplus(x, threshold=80)),
    "Softsign": _unary(F.softsign),
    "Mish": _unary(F.mish),
    "HardSwish": _unary(F.hardswish),
    "HardSigmoid": _hard_sigmoid,
    "LeakyRelu": _leaky,
    "PRelu": _prelu,
    "Elu": lambda call: F.elu(call.tensor(0), call.attribute("alpha", 1.0)),
    "Celu": lambda call: F.celu(call.tensor(0), call.attribute("alpha", 1.0)),
    "Selu": _selu,
    "ThresholdedRelu": lambda call: F.threshold(call.tensor(0), call.attribute("alpha", 1.0), 0.0),
    "Gelu": _gelu,
}
