"""Quantisers put into a traced graph: round each weight to its precision, and each tensor that a layer reads."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, fx, nn

from flyweight.graph.trace import trace
from flyweight.graph.traced import TracedModel, clean, tensor_of
from flyweight.quantization.fake_quantize import FakeQuantize, Stored, from_blocks, in_blocks
from flyweight.quantization.observe import Seen
from flyweight.quantization.placement import Placement, place
from flyweight.quantization.ranges import Method, Range, find_range, squared_error
from flyweight.quantization.sites import QUANTIZERS, Site
from flyweight.quantization.tied import round_tied_lookups

Precision = Literal["float32", "bfloat16", "int8", "int4"]
#: Bytes of a stored weight.
BYTES: dict[Precision, float] = {"float32": 4.0, "bfloat16": 2.0, "int8": 1.0, "int4": 0.5}
#: An engine holds a bias as int32 in steps of input scale x weight scale; half the range is left to the sums.
_BIAS_STEPS = 2.0**30


@dataclass(frozen=True)
class Rounding:
    """How numbers are rounded.

    Args:
        ranges: how ranges are found, see `find_range`.
        per_channel: a scale for each output channel of a weight, or one for all.
        symmetric: whether weights have no zero point; activations always may have one.
        group_size: neighbours of an int4 weight that share a scale.
        activations: whether what int8 layers read is rounded too.
    """

    ranges: Method = "mse"
    per_channel: bool = True
    symmetric: bool = True
    group_size: int = 32
    activations: bool = True


def runs_in_integers(precision: Precision, rounding: Rounding) -> bool:
    """Return whether a layer of this precision reads rounded activations; int4 weights are unpacked when read."""
    return precision == "int8" and rounding.activations


def placements(traced: TracedModel, sites: Iterable[Site], rounding: Rounding) -> tuple[Placement, ...]:
    """Return the tensors to look at before `insert` for layers that are all int8."""
    return place(traced, sites) if rounding.activations else ()


def insert(
    traced: TracedModel,
    sites: Iterable[Site],
    precision: Mapping[str, Precision],
    rounding: Rounding,
    seen: Mapping[str, Seen],
) -> TracedModel:
    """Return a copy of a traced model with its weights and activations rounded.

    Args:
        traced: batch norm folded; left as it was.
        sites: its layers, see `find_sites`.
        precision: of each layer by name; a layer that is not named stays float32.
        rounding: how.
        seen: what was seen of each tensor that is rounded, see `placements` and `observe`.

    Raises:
        InputError: groups of an int4 weight do not divide its inputs.
    """
    rounded = trace(traced, {})
    body = rounded.body
    nodes = {node.name: node for node in body.graph.nodes}
    if QUANTIZERS not in body._modules:
        body.add_module(QUANTIZERS, nn.Module())
    chosen = [site for site in sites if precision.get(site.name, "float32") != "float32"]
    integer = [site for site in chosen if runs_in_integers(precision[site.name], rounding)]
    steps: dict[str, Tensor] = {}
    for placement in place(rounded, integer):
        found = activation_range(seen.get(placement.node), rounding)
        readers = [nodes[name] for name in placement.readers]
        _put(body, nodes[placement.node], readers, placement.node, FakeQuantize(found, rows=True))
        steps |= dict.fromkeys([placement.node, *placement.readers], found.scale)
    done: dict[str, str] = {}
    for site in chosen:
        step = steps.get(site.input, steps.get(site.node)) if site in integer else None
        module = weight_rounding(rounded, site, precision[site.name], rounding, step)
        if done.setdefault(f"{site.reader} {site.edge}", site.name) == site.name:
            _put(body, nodes[site.reader], [nodes[site.edge]], f"{site.reader}_{site.edge}", module)
    round_tied_lookups(body)
    clean(body)
    return rounded


def activation_range(seen: Seen | None, rounding: Rounding) -> Range:
    """Return the range of an activation, affine uint8; of one that no number passed through, that of nothing."""
    if seen is None or not seen.histogram.count:
        return find_range(torch.zeros(1), 8, symmetric=False, method="minmax")
    values, counts = seen.histogram.values()
    method: Method = "mse" if rounding.ranges == "noise" else rounding.ranges
    return find_range(values, 8, symmetric=False, method=method, counts=counts)


def weight_rounding(
    traced: TracedModel, site: Site, precision: Precision, rounding: Rounding, step: Tensor | None = None
) -> nn.Module:
    """Return the module that rounds a layer's weight; `step` is the scale of what the layer reads, where it is rounded.

    Raises:
        InputError: groups of an int4 weight do not divide its inputs.
    """
    weight = site.tensor(traced).detach()
    if precision == "bfloat16":
        return Stored("bfloat16")
    if precision == "int4" and weight.ndim == 2:
        return _grouped(weight, site, rounding)
    bits = 4 if precision == "int4" else 8
    axis = site.out_axis if rounding.per_channel else None
    found = find_range(weight, bits, symmetric=rounding.symmetric, method=rounding.ranges, axis=axis)
    if step is not None and site.bias is not None:
        found = _with_room_for_bias(found, tensor_of(traced.body, site.bias).detach(), step, weight, axis)
    return FakeQuantize(found, axis=site.out_axis)


def _grouped(weight: Tensor, site: Site, rounding: Rounding) -> FakeQuantize:
    size, axis = rounding.group_size, site.in_axis
    blocks = in_blocks(weight, size, axis, site.name)
    found = find_range(blocks, 4, symmetric=rounding.symmetric, method=rounding.ranges, axis=0)
    scale, zero = (from_blocks(one, weight.shape, size, axis) for one in (found.scale, found.zero_point))
    return FakeQuantize(Range(scale, zero, found.low, found.high, found.error), axis=axis, block=size)


def _with_room_for_bias(found: Range, bias: Tensor, step: Tensor, weight: Tensor, axis: int | None) -> Range:
    """Widen the scale of a channel of next to no weights, whose bias would not fit 32 bits in steps of that scale."""
    least = bias.abs() / (step * _BIAS_STEPS)
    scale = torch.maximum(found.scale, least if axis is not None else least.max())
    if torch.equal(scale, found.scale):
        return found
    rows = weight.reshape(1, -1) if axis is None else weight.movedim(axis, 0).reshape(weight.shape[axis], -1)
    error = squared_error(rows, scale.reshape(-1), found.zero_point.reshape(-1).float(), found.low, found.high)
    return Range(scale, found.zero_point, found.low, found.high, error.reshape(scale.shape))


def _put(body: fx.GraphModule, node: fx.Node, readers: list[fx.Node], name: str, module: nn.Module) -> None:
    """Have some readers of a node read it through a module."""
    target = f"{QUANTIZERS}.{name}"
    body.add_submodule(target, module)
    with body.graph.inserting_after(node):
        call = body.graph.call_module(target, (node,))
    call.meta = {key: value for key, value in node.meta.items() if key in ("val", "nn_module_stack")}
    for reader in readers:
        reader.replace_input_with(node, call)
