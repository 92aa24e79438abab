"""Quantised models written by hand: each layer's weight and input go through an operator that rounds."""

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from flyweight.engines.export import Exported, export_onnx
from flyweight.graph.quantize_ops import dynamic_linear, quantize_dequantize, quantize_dequantize_blocks, stored

Batch = dict[str, Tensor]


def images(rows: int) -> Batch:
    return {"image": torch.rand((rows, 3, 12, 12), generator=torch.Generator().manual_seed(rows)) * 2 - 1}


def vectors(rows: int) -> Batch:
    return {"x": torch.randn((rows, 32), generator=torch.Generator().manual_seed(rows))}


def sequences(rows: int) -> Batch:
    return {"x": torch.randn((rows, 5, 32), generator=torch.Generator().manual_seed(rows))}


class Activation(nn.Module):
    """Rounds to uint8 between two ends that hold 0."""

    def __init__(self, least: float, most: float, low: int = 0, high: int = 255) -> None:
        super().__init__()
        self.low, self.high = low, high
        self.register_buffer("scale", torch.tensor((most - least) / (high - low)))
        self.register_buffer("zero", torch.tensor(round(low - least / ((most - least) / (high - low)))))

    def forward(self, x: Tensor) -> Tensor:
        return quantize_dequantize(x, self.scale, self.zero, 0, self.low, self.high)


def channel_scales(weight: Tensor, high: int = 127) -> Tensor:
    return weight.detach().abs().flatten(1).amax(1) / high


class QuantConv(nn.Module):
    def __init__(self, inputs: int, outputs: int, size: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, padding=size // 2)
        self.register_buffer("scale", channel_scales(self.conv.weight))

    def forward(self, x: Tensor) -> Tensor:
        weight = quantize_dequantize(self.conv.weight, self.scale)
        return functional.conv2d(x, weight, self.conv.bias, padding=self.conv.padding)


class Residual(nn.Module):
    """Convolutions, a residual sum, a concatenation of branches with scales of their own, pools and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        ends = [(-1, 1), (0, 2), (-2, 2), (0, 2), (-1, 1), (0, 3), (-1, 3)]
        self.ends = nn.ModuleList(Activation(*one) for one in ends)
        self.a, self.b, self.c = QuantConv(3, 8), QuantConv(8, 8), QuantConv(8, 4, 1)
        self.last = nn.Linear(12, 5)
        self.pooled = Activation(-1, 3)
        self.register_buffer("scale", channel_scales(self.last.weight))

    def forward(self, image: Tensor) -> Tensor:
        x = self.ends[1](torch.relu(self.a(self.ends[0](image))))
        x = functional.max_pool2d(x, 2)
        y = self.ends[3](torch.relu(x + self.ends[2](self.b(x))))
        z = self.ends[6](torch.cat([y, self.ends[4](self.c(y))], 1))
        mean = self.pooled(functional.adaptive_avg_pool2d(z, 1)).flatten(1)
        return functional.linear(mean, quantize_dequantize(self.last.weight, self.scale), self.last.bias)


class Layers(nn.Module):
    """Two linear layers of one kind."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.layers = nn.ModuleList([nn.Linear(32, 48), nn.Linear(48, 32)])
        self.ends = nn.ModuleList([Activation(-4, 4), Activation(0, 3)])
        for number, layer in enumerate(self.layers):
            weight = layer.weight.detach()
            self.register_buffer(f"scale{number}", channel_scales(weight))
            self.register_buffer(f"blocks{number}", weight.unflatten(1, (-1, 16)).abs().amax(2) / 7)
            self.register_buffer(f"whole{number}", (weight / channel_scales(weight)[:, None]).round().to(torch.int8))

    def forward(self, x: Tensor) -> Tensor:
        return self._layer(torch.relu(self._layer(x, 0)), 1)

    def _layer(self, x: Tensor, number: int) -> Tensor:
        layer, scale = self.layers[number], getattr(self, f"scale{number}")
        if self.kind == "dynamic":
            return dynamic_linear(x, getattr(self, f"whole{number}"), scale, layer.bias)
        if self.kind == "static" or (self.kind == "mixed" and number == 0):
            return functional.linear(self.ends[number](x), quantize_dequantize(layer.weight, scale), layer.bias)
        return functional.linear(x, self._weight(layer.weight, number), layer.bias)

    def _weight(self, weight: Tensor, number: int) -> Tensor:
        scale = getattr(self, f"scale{number}")
        if self.kind == "int8 weights":
            return quantize_dequantize(weight, scale, None, 0, -127, 127)
        if self.kind == "int4 weights":
            return quantize_dequantize(weight, scale * 127 / 7, None, 0, -8, 7)
        if self.kind in ("int4 blocks", "mixed"):
            return quantize_dequantize_blocks(weight, getattr(self, f"blocks{number}"), None, 1, 16)
        return stored(weight, self.kind)


#: name -> (model, batch of so many rows)
QUANTISED: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Batch]]] = {
    "residual": (Residual, images),
    **{
        kind: (lambda kind=kind: Layers(kind), vectors)  # type: ignore[misc]
        for kind in ("static", "mixed", "dynamic", "int8 weights", "int4 weights", "int4 blocks", "bfloat16")
    },
    **{
        f"{kind} of sequences": (lambda kind=kind: Layers(kind), sequences)  # type: ignore[misc]
        for kind in ("static", "int4 blocks")
    },
}


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    return QUANTISED[name][0]().eval()


@cache
def exported(name: str) -> Exported:
    """Export a model once; the files are read by many tests and written by none."""
    return export_onnx(build(name), QUANTISED[name][1](6), Path(_FOLDER.name, name.replace(" ", "_")))


_FOLDER = tempfile.TemporaryDirectory(prefix="flyweight-quantised-")
