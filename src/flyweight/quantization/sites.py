"""The layers of a traced graph that can run in integers, and what must stay in floating point, with the reason."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, fx

from flyweight.graph.traced import TracedModel, module_of, tensor_of
from flyweight.task.change import Skipped

STEP = "quantize"
#: Folder of the quantisers in a traced model.
QUANTIZERS = "quantizers"
aten = torch.ops.aten
Kind = Literal["linear", "conv", "matmul"]
CONVOLUTIONS = (aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)
_PRODUCTS = (aten.matmul.default, aten.mm.default, aten.bmm.default, aten.addmm.default)
_TURNS = (aten.t.default, aten.numpy_T.default, aten.transpose.int, aten.permute.default)
#: Work that is neither a layer nor free: said to stay in floating point.
_FLOAT: dict[object, str] = {
    aten.scaled_dot_product_attention.default: "attention multiplies two activations; its softmax needs floating point",
    aten.conv_transpose1d.default: "transposed convolution has no integer kernel here",
    aten.conv_transpose2d.input: "transposed convolution has no integer kernel here",
    aten.conv_transpose3d.input: "transposed convolution has no integer kernel here",
    aten.lstm.input: "recurrent layers have no integer kernel here",
    aten.gru.input: "recurrent layers have no integer kernel here",
    aten.batch_norm.default: "a batch norm that could not be folded into the layer before it",
}


@dataclass(frozen=True)
class Site:
    """A layer with a constant weight.

    Args:
        name: of the layer in the model ("mlp.0"); of its weight where a layer is no module.
        kind: "linear", "conv" or "matmul" (a product with a constant, as Keras writes a dense layer).
        node: the operator's name in the graph.
        input: name of the node whose output it reads.
        weight: name of its weight.
        reader, edge: names of the node that reads the weight, and of the one that takes it from there.
        out_axis, in_axis: dimensions of the weight: output channels, and inputs.
        bias: name of its bias, or None.
        shared: whether something else reads the weight too (another layer, a table that scores are tied to): it may be
            rounded on its way to this layer, and must not be written to.
    """

    name: str
    kind: Kind
    node: str
    input: str
    weight: str
    reader: str
    edge: str
    out_axis: int
    in_axis: int
    bias: str | None
    shared: bool

    def tensor(self, traced: TracedModel) -> Tensor:
        """Return the weight."""
        return tensor_of(traced.body, self.weight)


def find_sites(traced: TracedModel) -> tuple[tuple[Site, ...], tuple[Skipped, ...]]:
    """Return the layers of a graph in the order they run, and what stays in floating point.

    Example:
        >>> from flyweight.graph.trace import trace
        >>> [site.name for site in find_sites(trace(torch.nn.Linear(3, 2), {"input": torch.rand(4, 3)}))[0]]
        ['weight']
    """
    sites: list[Site] = []
    skipped: list[Skipped] = []
    tables = {str(node.target) for node in traced.body.graph.nodes if node.op == "call_module"}
    for node in traced.body.graph.nodes:
        if node.target is aten.linear.default or node.target in CONVOLUTIONS or node.target in _PRODUCTS:
            site, why = _site(node, tables)
            if site is not None:
                sites.append(site)
            else:
                skipped.append(Skipped(module_of(node) or node.name, why, STEP))
        elif node.target in _FLOAT:
            skipped.append(Skipped(module_of(node) or node.name, _FLOAT[node.target], STEP))
        elif node.op == "call_module" and not str(node.target).startswith(f"{QUANTIZERS}."):
            skipped.append(Skipped(str(node.target), "a table is left to the step that codes tables", STEP))
    return tuple(sites), tuple(_once(skipped))


def channels_read(site: Site) -> int:
    """Return the dimension of the channels of what a layer reads: 1 for a convolution, else the last."""
    return 1 if site.kind == "conv" else -1


def inputs_of(site: Site, traced: TracedModel) -> int:
    """Return how many numbers one output sums over."""
    weight = site.tensor(traced)
    return weight.numel() // weight.shape[site.out_axis]


def _site(node: fx.Node, tables: set[str]) -> tuple[Site | None, str]:
    first, second = (1, 2) if node.target is aten.addmm.default else (0, 1)
    given, weight = node.args[first], node.args[second]
    if not isinstance(given, fx.Node) or not isinstance(weight, fx.Node):
        return None, "its arguments are no tensors of the graph"
    if node.target is aten.linear.default or node.target in CONVOLUTIONS:
        kind: Kind = "linear" if node.target is aten.linear.default else "conv"
        bias = node.args[2] if len(node.args) > 2 else None
        chain, turned = ((weight, node) if weight.op == "get_attr" else None), False
    else:
        kind, bias = "matmul", node.args[0] if node.target is aten.addmm.default else _added(node)
        chain, turned = _constant(weight, node)
    if chain is None:
        if _constant(given, node)[0] is None and node.target in _PRODUCTS:
            return None, "it multiplies two activations"
        rounded = weight.op == "call_module" and str(weight.target).startswith(f"{QUANTIZERS}.")
        return None, "it is quantised already" if rounded else "its weight is computed in the model, not stored"
    reader, edge = chain
    if _constant(given, node)[0] is not None:
        return None, "it depends on no input"
    if kind == "matmul" and reader.meta["val"].ndim != 2:
        return None, f"its weight has {reader.meta['val'].ndim} dimensions; a matrix has 2"
    out_axis = 0 if kind != "matmul" or turned else 1
    bias_name = str(bias.target) if isinstance(bias, fx.Node) and bias.op == "get_attr" else None
    weight_name = str(reader.target)
    name = weight_name.removesuffix(".weight")
    names = (weight_name, reader.name, edge.name)
    several = len(reader.users) > 1 or (edge is not node and len(edge.users) > 1)
    shared = several or weight_name.rpartition(".")[0] in tables
    return Site(name, kind, node.name, given.name, *names, out_axis, 1 - out_axis, bias_name, shared), ""


def _constant(node: fx.Node, reader: fx.Node) -> tuple[tuple[fx.Node, fx.Node] | None, bool]:
    """Return the node that reads the constant that this one is, the node next to it, and whether it is transposed."""
    turned = False
    while node.target in _TURNS and node.meta["val"].ndim == 2:
        if node.target not in (aten.permute.default, aten.transpose.int) or _swaps(node):
            turned = not turned
        before = node.args[0]
        assert isinstance(before, fx.Node)
        node, reader = before, node
    return ((node, reader) if node.op == "get_attr" else None), turned


def _added(node: fx.Node) -> fx.Node | None:
    """Return the constant vector that is added to a product, as a dense layer of Keras does."""
    users = list(node.users)
    if len(users) != 1 or users[0].target is not aten.add.Tensor:
        return None
    other = [one for one in users[0].args[:2] if one is not node]
    vector = other[0] if other else None
    return vector if isinstance(vector, fx.Node) and vector.op == "get_attr" and vector.meta["val"].ndim == 1 else None


def _swaps(node: fx.Node) -> bool:
    places = node.args[1] if node.target is aten.permute.default else node.args[1:3]
    assert isinstance(places, (list, tuple))
    wanted = [place % 2 for place in places if isinstance(place, int)]
    return wanted in ([1, 0], [0, 1]) if node.target is aten.transpose.int else wanted == [1, 0]


def _once(skipped: Iterable[Skipped]) -> Iterable[Skipped]:
    return dict.fromkeys(skipped)
