"""ONNX operators that reduce, order, pool and resize."""

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from flyweight.graph.onnx_import.elementwise import Handler
from flyweight.graph.onnx_import.node import Call, Known, Value, known
from flyweight.graph.onnx_import.padding import padded

Reduction = Callable[[Tensor, list[int], bool], Tensor]


def _reduce(function: Reduction, numbers: Callable[[Any, Any], Any] | None = None) -> Handler:
    """Return what runs a reduction; sizes are reduced as plain numbers."""

    def run(call: Call) -> Value:
        axes, keep = call.axes(), bool(call.attribute("keepdims", 1))
        if numbers is not None and call.all_known():
            total: Known = known(functools.reduce(numbers, call.numbers(0)))
            return total.reshape([1]) if keep else total
        x = call.tensor(0)
        if not axes and call.attribute("noop_with_empty_axes", 0):
            return x
        return function(x, axes or list(range(x.ndim)), keep)

    return run


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _argument(function: Callable[..., Tensor]) -> Handler:
    def run(call: Call) -> Tensor:
        if call.attribute("select_last_index", 0):
            call.node.refuse("select_last_index = 1.")
        return function(call.tensor(0), call.attribute("axis", 0), bool(call.attribute("keepdims", 1)))

    return run


def _top(call: Call) -> tuple[Tensor, ...]:
    count = int(call.known(1).item()) if call.given(1) else call.attribute("k")
    largest, ordered = bool(call.attribute("largest", 1)), bool(call.attribute("sorted", 1))
    values, places = torch.topk(call.tensor(0), count, call.attribute("axis", -1), largest, ordered)
    return values, places


def _cumulated(call: Call) -> Tensor:
    x, axis = call.tensor(0), int(call.known(1).item())
    backward = bool(call.attribute("reverse", 0))
    y = (x.flip(axis) if backward else x).cumsum(axis)
    y = (y.flip(axis) if backward else y).to(x.dtype)
    return y - x if call.attribute("exclusive", 0) else y


def _one_hot(call: Call) -> Tensor:
    places, depth = call.tensor(0).long(), int(call.known(1).reshape(-1)[0])
    if call.attribute("axis", -1) != -1:
        call.node.refuse("an axis other than -1.")
    off, on = call.tensor(2)
    hot = torch.remainder(places, depth).unsqueeze(-1) == torch.arange(depth, device=places.device)
    return torch.where(hot, on, off)


def _max_pool(call: Call) -> tuple[Tensor, ...]:
    if len([name for name in call.node.outputs if name]) > 1:
        call.node.refuse("the output of places.")
    kernel = tuple(call.attribute("kernel_shape"))
    x, pads = padded(call, call.tensor(0), kernel, float("-inf"))
    rank = len(kernel)
    function: Any = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[rank - 1]
    strides, dilations = call.attribute("strides", [1] * rank), call.attribute("dilations", [1] * rank)
    return (function(x, kernel, strides, pads, dilations, bool(call.attribute("ceil_mode", 0))),)


def _average_pool(call: Call) -> Tensor:
    kernel = tuple(call.attribute("kernel_shape"))
    rank, counted = len(kernel), bool(call.attribute("count_include_pad", 0))
    if max(call.attribute("dilations", [1])) > 1:
        call.node.refuse("dilations other than 1.")
    x, pads = padded(call, call.tensor(0), kernel, 0.0)
    function: Any = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[rank - 1]
    run = functools.partial(function, kernel_size=kernel, stride=call.attribute("strides", [1] * rank), padding=pads,
                            ceil_mode=bool(call.attribute("ceil_mode", 0)))  # fmt: skip
    uneven = x is not call.tensor(0)
    if uneven and not counted:  # what was padded above must not count
        shown, _ = padded(call, torch.ones_like(call.tensor(0)), kernel, 0.0)
        result: Tensor = run(x) / run(shown)
        return result
    pooled: Tensor = run(x, count_include_pad=counted or uneven)
    return pooled


def _global_average(call: Call) -> Tensor:
    x = call.tensor(0)
    if x.ndim == 4:
        return F.adaptive_avg_pool2d(x, 1)
    return x.mean(list(range(2, x.ndim)), keepdim=True)


def _global_max(call: Call) -> Tensor:
    x = call.tensor(0)
    return x.amax(list(range(2, x.ndim)), keepdim=True)


def _resize(call: Call) -> Tensor:
    x, old = call.tensor(0), call.node.operator == "Upsample" or call.node.opset < 11
    scales = None if old else 2
    sizes = call.numbers(3)[2:] if call.given(3) else None
    factors = [float(one) for one in call.numbers(1 if scales is None else scales)] if sizes is None else None
    if call.attribute("antialias", 0):
        call.node.refuse("antialias = 1.")
    if call.attribute("axes") is not None or (factors is not None and factors[:2] != [1.0, 1.0]):
        call.node.refuse("a resize of other dimensions than height and width.")
    mode = _resize_mode(call, factors, sizes, old=old)
    corners = (call.attribute("coordinate_transformation_mode") == "align_corners") if "linear" in mode or (
        mode == "bicubic") else None  # fmt: skip
    if corners and factors and any(size * factor % 1 for size, factor in zip(x.shape[2:], factors[2:], strict=True)):
        call.node.refuse(f"factors {factors[2:]} that do not give whole sizes, with align_corners.")
    return F.interpolate(x, size=sizes, scale_factor=factors[2:] if factors else None, mode=mode, align_corners=corners)


def _resize_mode(call: Call, factors: list[float] | None, sizes: list[Any] | None, *, old: bool) -> str:
    """Return PyTorch's name for a way to resize, or refuse one that it has not."""
    mode, rank = call.attribute("mode", "nearest"), call.tensor(0).ndim - 2
    places = call.attribute("coordinate_transformation_mode", "asymmetric" if old else "half_pixel")
    rounding = call.attribute("nearest_mode", "floor" if old else "round_prefer_floor")
    if mode == "nearest":
        whole = factors is not None and all(factor == int(factor) for factor in factors)
        if (places, rounding) == ("asymmetric", "floor") or (whole and places == "half_pixel" and "floor" in rounding):
            return "nearest"
        if (places, rounding) == ("half_pixel", "round_prefer_ceil"):
            return "nearest-exact"
    if places == "pytorch_half_pixel" and sizes and 1 in sizes:
        call.node.refuse("pytorch_half_pixel to a single pixel.")
    usual = places in ("half_pixel", "pytorch_half_pixel", "align_corners")
    if mode == "linear" and usual and not old:
        return ("linear", "bilinear", "trilinear")[rank - 1]
    if mode == "cubic" and usual and rank == 2 and call.attribute("cubic_coeff_a", -0.75) == -0.75:
        return "bicubic"
    return call.node.refuse(f"mode {mode!r} with {places!r} and {rounding!r}.")


REDUCTIONS: Mapping[str, Handler] = {
    "ReduceSum": _reduce(lambda x, axes, keep: x.sum(axes, keepdim=keep).to(x.dtype), operator.add),
    "ReduceMean": _reduce(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
    "ReduceMax": _reduce(lambda x, axes, keep: x.amax(axes, keepdim=keep), torch.sym_max),
    "ReduceMin": _reduce(lambda x, axes, keep: x.amin(axes, keepdim=keep), torch.sym_min),
    "ReduceProd": _reduce(_product, operator.mul),
    "ReduceL1": _reduce(lambda x, axes, keep: x.abs().sum(axes, keepdim=keep)),
    "ReduceL2": _reduce(lambda x, axes, keep: (x * x).sum(axes, keepdim=keep).sqrt()),
    "ReduceSumSquare": _reduce(lambda x, axes, keep: (x * x).sum(axes, keepdim=keep)),
    "ReduceLogSum": _reduce(lambda x, axes, keep: x.sum(axes, keepdim=keep).log()),
    "ReduceLogSumExp": _reduce(lambda x, axes, keep: x.logsumexp(axes, keepdim=keep)),
    "ArgMax": _argument(torch.argmax),
    "ArgMin": _argument(torch.argmin),
    "TopK": _top,
    "CumSum": _cumulated,
    "OneHot": _one_hot,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_average,
    "GlobalMaxPool": _global_max,
    "Resize": _resize,
    "Upsample": _resize,
}
