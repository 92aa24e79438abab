"""How much a model's output suffers when one layer alone is rounded, from simulation on calibration data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flyweight.graph.traced import TracedModel
from flyweight.quantization.fake_quantize import FakeQuantize, Stored
from flyweight.quantization.insert import BYTES, Precision
from flyweight.quantization.observe import Inputs
from flyweight.quantization.sites import QUANTIZERS, Site
from flyweight.task.scores import evaluating

#: What a layer may be raised to, from the fewest bytes to the most.
LADDER: tuple[Precision, ...] = ("int4", "int8", "bfloat16", "float32")


@dataclass(frozen=True)
class Price:
    """What a precision costs a layer.

    Args:
        bytes: of its weights.
        error: mean squared change of the model's outputs when this layer alone has it, in variances of the outputs.
    """

    bytes: int
    error: float


def output_error(rounded: TracedModel, site: Site, rows: Sequence[Inputs], wanted: Sequence[Tensor]) -> float:
    """Return the mean squared change of the outputs with one layer rounded, weight and input, in their variances.

    Args:
        rounded: a model in which all layers are rounded; its quantisers are switched off and on.
        site: the layer.
        rows: calibration inputs.
        wanted: the outputs of the float model for each.
    """
    nodes = {node.name: node for node in rounded.body.graph.nodes}
    read = {str(one.target) for name in (site.node, site.edge) for one in nodes[name].all_input_nodes}
    modules = dict(rounded.body.named_modules())
    inside = {name: module for name, module in modules.items() if name.startswith(f"{QUANTIZERS}.")}
    own = {name for name in read if name in inside}
    change = spread = 0.0
    with _only(inside, own), evaluating(rounded), torch.no_grad():
        for inputs, outputs in zip(rows, wanted, strict=True):
            change += float((rounded(**inputs) - outputs).double().square().sum())
            spread += float((outputs.double() - outputs.double().mean(0)).square().sum())
    return change / max(spread, 1e-300)


class _only:  # noqa: N801
    """Switches all quantisers off but some, and on again afterwards."""

    def __init__(self, inside: Mapping[str, nn.Module], own: set[str]) -> None:
        self.others = [module for name, module in inside.items() if name not in own]

    def __enter__(self) -> None:
        for module in self.others:
            assert isinstance(module, (FakeQuantize, Stored))
            module.enabled = False

    def __exit__(self, *_: object) -> None:
        for module in self.others:
            assert isinstance(module, (FakeQuantize, Stored))
            module.enabled = True


def raise_precision(
    prices: Mapping[str, Mapping[Precision, Price]], start: Precision, most: float
) -> dict[str, Precision]:
    """Return the precision of each layer: all at `start`, some raised until the errors add up to at most `most`.

    The errors of layers add up as long as they are small, because they are about independent. Raised is what takes off
    the most error for a byte (the greedy answer to the knapsack).

    Example:
        >>> cheap, dear = Price(50, 0.02), Price(100, 0.001)
        >>> raise_precision({"a": {"int4": cheap, "int8": dear}, "b": {"int4": Price(50, 0.001)}}, "int4", 0.01)
        {'a': 'int8', 'b': 'int4'}
    """
    chosen: dict[str, Precision] = dict.fromkeys(prices, start)
    while sum(prices[name][at].error for name, at in chosen.items()) > most:
        moves = [
            ((prices[name][at].error - price.error) / max(price.bytes - prices[name][at].bytes, 1), name, to)
            for name, at in chosen.items()
            for to, price in prices[name].items()
            if LADDER.index(to) > LADDER.index(at) and price.error < prices[name][at].error
        ]
        if not moves:
            break
        _, name, to = max(moves)
        chosen[name] = to
    return chosen


def weight_bytes(site: Site, traced: TracedModel, precision: Precision) -> int:
    """Return the bytes of a layer's weight, without its scales."""
    return round(site.tensor(traced).numel() * BYTES[precision])
