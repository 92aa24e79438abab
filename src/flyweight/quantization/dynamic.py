"""Linear layers that round what they read by the range it has in each call: no calibration, and nothing to go stale."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from flyweight.graph.quantize_ops import dynamic_linear
from flyweight.graph.tensors import put_tensor, read_tensor
from flyweight.graph.trace import trace
from flyweight.graph.traced import TracedModel, clean
from flyweight.quantization.insert import Rounding
from flyweight.quantization.ranges import find_range
from flyweight.quantization.sites import STEP, Site
from flyweight.task.change import Skipped

assert dynamic_linear is not None  # importing it registers the operator
_NAME = "a layer that rounds by the call is a linear one"


def make_dynamic(
    traced: TracedModel, sites: Sequence[Site], rounding: Rounding
) -> tuple[TracedModel, list[dict[str, Any]], list[Skipped]]:
    """Return a copy whose linear layers have int8 weights and round their input in each call.

    The range is that of the whole batch, so a row's scores depend a little on the rows beside it.

    Returns:
        The copy, a record for each layer, and the layers that were left.
    """
    copied = trace(traced, {})
    nodes = {node.name: node for node in copied.body.graph.nodes}
    done: list[dict[str, Any]] = []
    left: list[Skipped] = []
    for site in sites:
        if site.kind == "linear":
            done.append(_make(copied, nodes, site, rounding))
        else:
            left.append(Skipped(site.name, f"{_NAME}, this is a {site.kind}; static ranges take it", STEP))
    clean(copied.body)
    return copied, done, left


def _make(copied: TracedModel, nodes: dict[str, fx.Node], site: Site, rounding: Rounding) -> dict[str, Any]:
    weight = site.tensor(copied).detach()
    found = find_range(weight, 8, method=rounding.ranges, axis=site.out_axis if rounding.per_channel else None)
    scale = found.scale.expand(len(weight))
    whole = torch.round(weight / scale[:, None]).clamp(found.low, found.high)
    node = nodes[site.node]
    graph = copied.body.graph
    name = site.weight.replace(".", "_")
    integers = read_tensor(copied.body, f"dynamic.{name}_integers", whole.to(torch.int8), node)
    steps = read_tensor(copied.body, f"dynamic.{name}_scale", scale, node)
    for constant, tensor in ((integers, whole.to(torch.int8)), (steps, scale)):
        put_tensor(copied.body, str(constant.target), tensor, parameter=False)
    with graph.inserting_before(node):
        bias = node.args[2] if len(node.args) > 2 else None
        call = graph.call_function(
            torch.ops.flyweight.dynamic_linear.default, (node.args[0], integers, steps, bias)
        )
    call.meta = {key: value for key, value in node.meta.items() if key in ("val", "nn_module_stack")}
    node.replace_all_uses_with(call)
    graph.erase_node(node)
    return {
        "what": "layer",
        "name": site.name,
        "kind": site.kind,
        "from": "float32",
        "to": "int8",
        "activations": "uint8, ranged in each call",
        "bytes_before": 4 * weight.numel(),
        "bytes_after": weight.numel() + 4 * len(weight) + (4 * weight.numel() if site.shared else 0),
        "error": float(2 * found.error.sum() / weight.double().square().sum().clamp_min(1e-300)),
        "ranges": rounding.ranges,
        "scales": found.scale.numel(),
    }
