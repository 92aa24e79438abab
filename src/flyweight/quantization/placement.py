"""Where quantisers of activations stand, so that what runs between integer layers runs in integers too.

Found by running exported models in ONNX Runtime and OpenVINO (docs/quantization.md). In short: a quantiser on what each
layer reads; on what each convolution gives, after its ReLU; on both sides of a residual sum; on each branch of a
concatenation and on the whole; round an average. Between linear layers what they read is rounded, and what comes out of
a ReLU: a sum or a norm in floating point costs little there.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import fx

from flyweight.graph.traced import TracedModel
from flyweight.quantization.sites import CONVOLUTIONS, Site

aten = torch.ops.aten
_BENT = (
    aten.relu.default,
    aten.relu_.default,
    aten.hardtanh.default,
    aten.hardtanh_.default,
    aten.relu6.default,
    aten.clamp.default,
    aten.clamp_min.default,
)
_SUMS = (aten.add.Tensor, aten.add_.Tensor)
#: Operators whose results lie on the grid that their input lies on.
_MOVES = (
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.flatten.using_ints,
    aten.view.default,
    aten.reshape.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    aten.transpose.int,
    aten.permute.default,
    aten.contiguous.default,
    aten.dropout.default,
    aten.dropout_.default,
    aten.slice.Tensor,
)
_SHAPES = (aten.flatten.using_ints, aten.view.default, aten.reshape.default, aten.squeeze.dim, aten.squeeze.dims)
_AVERAGES = (
    aten.avg_pool1d.default,
    aten.avg_pool2d.default,
    aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default,
    aten.mean.dim,
)


@dataclass(frozen=True)
class Placement:
    """A tensor to be quantised.

    Args:
        node: name of the node that makes it.
        readers: names of the nodes that are to read it quantised; others read it as it is.
    """

    node: str
    readers: tuple[str, ...]


def place(traced: TracedModel, sites: Iterable[Site]) -> tuple[Placement, ...]:
    """Return the tensors to be quantised so that some layers run in integers, in the order they are made."""
    layers = {site.node: site for site in sites}
    wanted: dict[fx.Node, list[fx.Node]] = {}
    whole: set[fx.Node] = set()  # tensors between convolutions, quantised for all their readers or moved from such
    nodes = list(traced.body.graph.nodes)
    for node in nodes:
        if (node.name in layers and node.target in CONVOLUTIONS) or _sums_up(node, whole):
            _for_all(bent(node), wanted, whole)
        elif node.target is aten.cat.default and whole & set(node.all_input_nodes):
            for branch in node.all_input_nodes:
                if branch not in whole:
                    wanted.setdefault(branch, []).append(node)
            _for_all(node, wanted, whole)
        elif node.target in _AVERAGES and node.all_input_nodes[0] in whole:
            _for_all(node, wanted, whole)
        elif node.target in _MOVES and node.all_input_nodes[0] in whole:
            whole.add(node)
    by_name = {node.name: node for node in nodes}
    for site in layers.values():
        curved = _bent_product(by_name[site.node])
        if curved is not None:
            _for_all(curved, wanted, whole)
    for site in layers.values():
        node, reader = _behind_shapes(by_name[site.input], by_name[site.node])
        if node not in whole:
            wanted.setdefault(node, []).append(reader)
    order = {node: number for number, node in enumerate(nodes)}
    return tuple(
        Placement(node.name, tuple(dict.fromkeys(one.name for one in wanted[node])))
        for node in sorted(wanted, key=order.__getitem__)
    )


def bent(node: fx.Node) -> fx.Node:
    """Return the ReLU that alone reads a node, or the node itself where none does."""
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].target in _BENT else node


def _for_all(node: fx.Node, wanted: dict[fx.Node, list[fx.Node]], whole: set[fx.Node]) -> None:
    """Have a tensor quantised for all its readers, unless it is the model's output."""
    if all(user.op == "output" for user in node.users):
        return
    whole.add(node)
    wanted[node] = [user for user in node.users if user.op != "output"]


def _bent_product(node: fx.Node) -> fx.Node | None:
    """Return the ReLU after a linear layer of a flat batch, over the sum with a bias where that is a node of its own.

    ONNX Runtime joins both to one operator, which has an integer form only where its result is rounded too.
    """
    if node.target in CONVOLUTIONS or node.meta["val"].ndim != 2:
        return None
    users = list(node.users)
    if len(users) == 1 and users[0].target in _SUMS and any(one.op == "get_attr" for one in users[0].all_input_nodes):
        node = users[0]
    curved = bent(node)
    return None if curved is node else curved


def _sums_up(node: fx.Node, whole: set[fx.Node]) -> bool:
    """Return whether a node adds two tensors that are both rounded already: the end of a residual block."""
    terms = [one for one in node.args[:2] if isinstance(one, fx.Node)]
    return node.target in _SUMS and len(terms) == 2 and set(terms) <= whole


def _behind_shapes(node: fx.Node, reader: fx.Node) -> tuple[fx.Node, fx.Node]:
    """Go back over changes of shape alone: a quantiser stands before them."""
    while node.target in _SHAPES and len(node.users) == 1 and isinstance(node.args[0], fx.Node):
        node, reader = node.args[0], node
    return node, reader
