"""`ids >> bits` as operators that every engine computes exactly.

PyTorch writes a signed shift as seven operators around an unsigned `BitShift`. OpenVINO computes `BitShift`, `Div`,
`Mod` and comparisons of whole numbers in float32, so that 16,777,219 >> 1 comes out as 8,388,610, and says nothing
(measured with 2026.4; docs/engines.md). Its `BitwiseAnd`, `Add`, `Sub` and `Mul` are exact. So a shift is written as

    low = x & 0xFFFF;   x >> k  =  (x - low) / 2^k  +  low / 2^k        for k <= 16

where both dividends fit the 24 bits of a float32 for every |x| < 2^40. Both are rounded down: `low` is not negative and
`x - low` is a multiple of 2^16. So this is the arithmetic shift, for negative x as well.
"""

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import torch
from onnxscript import opset20 as op

_LOW_BITS = 16


def shift_right(x: Any, other: int) -> Any:
    """Translate `aten::bitwise_right_shift.Tensor_Scalar` for a whole number `other` >= 0."""
    bits = int(other)
    dtype = ir.DataType(x.dtype)
    if dtype == ir.DataType.UINT64:  # does not fit the int64 that all others are computed in
        return op.BitShift(x, op.CastLike(op.Constant(value_int=bits), x), direction="RIGHT")
    wide = x if dtype == ir.DataType.INT64 else op.Cast(x, to=ir.DataType.INT64)
    while bits > _LOW_BITS:  # shifts add up
        wide, bits = _short_shift(wide, _LOW_BITS), bits - _LOW_BITS
    wide = _short_shift(wide, bits)
    return wide if dtype == ir.DataType.INT64 else op.Cast(wide, to=dtype)


def _short_shift(x: Any, bits: int) -> Any:
    low = op.BitwiseAnd(x, op.Constant(value_int=(1 << _LOW_BITS) - 1))
    power = op.Constant(value_int=1 << bits)
    return op.Add(op.Div(op.Sub(x, low), power), op.Div(low, power))


#: What `torch.onnx.export(custom_translation_table=...)` is given: operator of PyTorch -> how we write it.
TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.bitwise_right_shift.Tensor_Scalar: shift_right,
    torch.ops.aten.__rshift__.Scalar: shift_right,
}
