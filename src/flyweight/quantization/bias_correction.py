"""What rounding a weight adds to a layer's output on average, taken off its bias.

Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction" (arXiv:1906.04721, section
4.2): the expected error of an output is `(W^ - W) E[x]`, with E[x] the mean of each input channel.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, fx

from flyweight.graph.tensors import put_tensor, read_tensor
from flyweight.graph.traced import TracedModel, tensor_of
from flyweight.quantization.sites import QUANTIZERS, Site

aten = torch.ops.aten


def correct_biases(rounded: TracedModel, sites: Sequence[Site], means: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Take the expected error of each layer off its bias, in place; a linear layer or convolution without one gets one.

    Args:
        rounded: a copy with rounded weights that may be written to.
        sites: its layers.
        means: mean of each channel of what a layer reads, by the layer's name.

    Returns:
        The layers that were corrected.
    """
    nodes = {node.name: node for node in rounded.body.graph.nodes}
    done = []
    for site in sites:
        shift = expected_error(rounded, nodes, site, means[site.name]) if site.name in means else None
        if shift is None:
            continue
        node = nodes[site.node]
        if site.bias is not None:
            old = tensor_of(rounded.body, site.bias).detach()
            if old.shape != shift.shape or sum(str(one.target) == site.bias for one in nodes.values()) > 1:
                continue
            put_tensor(rounded.body, site.bias, old - shift)
        elif site.kind != "matmul":
            bias = read_tensor(rounded.body, _bias_name(site), -shift, node)
            node.args = (*node.args[:2], bias, *node.args[3:])
        else:
            continue
        done.append(site.name)
    rounded.body.recompile()
    return tuple(done)


def expected_error(
    rounded: TracedModel, nodes: Mapping[str, fx.Node], site: Site, mean: Tensor
) -> Tensor | None:
    """Return `(W^ - W) E[x]` of each output, (out,); None where the weight is not rounded or the shapes say nothing."""
    name = next((str(one.target) for one in nodes[site.edge].all_input_nodes if _rounds(one, site)), None)
    if name is None:
        return None
    weight = site.tensor(rounded).detach()
    with torch.no_grad():
        error = (rounded.body.get_submodule(name)(weight) - weight).double()
    if error.ndim > 2:  # a convolution: every place of the kernel sees the channel's mean
        error = error.flatten(2).sum(2)
    by_output = error if site.out_axis == 0 else error.T  # (out, in / groups)
    groups = len(mean) // by_output.shape[1] if len(mean) % by_output.shape[1] == 0 else 0
    if groups == 0 or len(by_output) % groups:
        return None
    parts = zip(by_output.chunk(groups), mean.double().chunk(groups), strict=True)
    return torch.cat([part @ of for part, of in parts]).float()


def _bias_name(site: Site) -> str:
    module = site.weight.removesuffix(".weight")
    return f"{module}_bias" if module == site.weight or module == "weight" else f"{module}.bias"


def _rounds(node: fx.Node, site: Site) -> bool:
    quantizer = node.op == "call_module" and str(node.target).startswith(f"{QUANTIZERS}.")
    return quantizer and node.all_input_nodes[0].name == site.reader
