"""What quantisation did to each layer, in plain values for the report."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import fx

from flyweight.graph.traced import TracedModel
from flyweight.quantization.fake_quantize import FakeQuantize, Stored
from flyweight.quantization.insert import BYTES, Precision, Rounding, runs_in_integers
from flyweight.quantization.sites import QUANTIZERS, Site


def layer_records(
    traced: TracedModel,
    rounded: TracedModel,
    sites: Iterable[Site],
    precision: Mapping[str, Precision],
    rounding: Rounding,
) -> list[dict[str, Any]]:
    """Return for each layer that was rounded: from, to, bytes before and after, how ranges were found, and the error.

    "error" is that of the weight relative to its size, `sum (w^ - w)^2 / sum w^2`; bytes are those of weights and their
    scales.
    """
    nodes = {node.name: node for node in rounded.body.graph.nodes}
    records = []
    for site in sites:
        to = precision.get(site.name, "float32")
        if to == "float32":
            continue
        weight = site.tensor(traced).detach()
        module = _module(rounded, nodes[site.edge], site)
        assert module is not None
        with torch.no_grad():
            error = (module(weight) - weight).square().sum() / weight.square().sum().clamp_min(1e-30)
        record: dict[str, Any] = {
            "what": "layer",
            "name": site.name,
            "kind": site.kind,
            "from": "float32",
            "to": to,
            "activations": "uint8" if runs_in_integers(to, rounding) else "float32",
            "bytes_before": 4 * weight.numel(),
            # A table that scores are tied to stays as it is, beside the integers.
            "bytes_after": stored_bytes(module, weight.numel(), to) + (4 * weight.numel() if site.shared else 0),
            "error": float(error),
        }
        if isinstance(module, FakeQuantize):
            record |= {"ranges": rounding.ranges, "scales": module.scale.numel()}
        records.append(record)
    return records


def stored_bytes(module: object, weights: int, to: Precision) -> int:
    """Return the bytes of a weight in a file: its numbers, its scales and its zero points."""
    size = round(weights * BYTES[to])
    if isinstance(module, FakeQuantize):
        size += 4 * module.scale.numel()
        size += 0 if module.zero_point is None else -(-module.zero_point.numel() * module.bits // 8)
    return size


def _module(rounded: TracedModel, node: fx.Node, site: Site) -> FakeQuantize | Stored | None:
    """Return the quantiser through which a node reads a layer's weight."""
    for one in node.all_input_nodes:
        if one.op == "call_module" and str(one.target).startswith(f"{QUANTIZERS}."):
            module = rounded.body.get_submodule(str(one.target))
            if one.all_input_nodes[0].name == site.reader and isinstance(module, (FakeQuantize, Stored)):
                return module
    return None
