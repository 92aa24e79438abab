"""The padding of convolutions and pools: PyTorch pads both sides alike, ONNX each side by its own number."""

import torch.nn.functional as F
from torch import Tensor

from flyweight.graph.onnx_import.node import Call, Node


def even_padding(node: Node, rank: int) -> tuple[int, ...] | None:
    """Return the padding of each of `rank` dimensions where both sides have the same, and None where they do not."""
    if node.attributes.get("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER"):
        return None
    pads = node.attributes.get("pads", [0] * (2 * rank))
    if node.attributes.get("auto_pad", "NOTSET") == "VALID":
        pads = [0] * (2 * rank)
    return tuple(pads[:rank]) if list(pads[:rank]) == list(pads[rank:]) and min(pads, default=0) >= 0 else None


def padded(call: Call, x: Tensor, kernel: tuple[int, ...], fill: float) -> tuple[Tensor, tuple[int, ...]]:
    """Return the input and the padding to give to PyTorch: uneven padding is done here, with the number `fill`."""
    rank = len(kernel)
    even = even_padding(call.node, rank)
    narrow = even is not None and all(2 * pad <= size for pad, size in zip(even, kernel, strict=True))
    if even is not None and (narrow or call.layer is not None):
        return x, even  # PyTorch's pools take no more than half a window
    sides = _sides(call, x, kernel)
    flat = [one for before, after in reversed(sides) for one in (before, after)]
    return F.pad(x, flat, value=fill), (0,) * rank


def _sides(call: Call, x: Tensor, kernel: tuple[int, ...]) -> list[tuple[int, int]]:
    rank, how = len(kernel), call.attribute("auto_pad", "NOTSET")
    pads = call.attribute("pads", [0] * (2 * rank))
    if how in ("NOTSET", "VALID"):
        return list(zip(pads[:rank], pads[rank:], strict=True))
    strides, dilations = call.attribute("strides", [1] * rank), call.attribute("dilations", [1] * rank)
    sides = []
    for size, window, stride, dilation in zip(x.shape[2:], kernel, strides, dilations, strict=True):
        lacking = max((-(-size // stride) - 1) * stride + (window - 1) * dilation + 1 - size, 0)
        less, more = lacking // 2, lacking - lacking // 2
        sides.append((less, more) if how == "SAME_UPPER" else (more, less))
    return sides
