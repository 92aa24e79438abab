"""How large the features are that units hand to the layers that read them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from flyweight.graph.traced import TracedModel
from flyweight.pruning.unit_sums import Lane
from flyweight.task.scores import evaluating

aten = torch.ops.aten
#: Layers whose input's features a weight reads by its dimension 1, with the dimension that those features lie in.
READERS: dict[Any, int] = {
    aten.linear.default: -1,
    aten.conv1d.default: 1,
    aten.conv2d.default: 1,
    aten.conv3d.default: 1,
}


def weight_readers(traced: TracedModel) -> dict[str, fx.Node]:
    """Return the weights of linear and convolution layers, each with the node that reads it last."""
    return {
        str(node.args[1].target): node
        for node in traced.body.graph.nodes
        if node.target in READERS and isinstance(node.args[1], fx.Node) and node.args[1].op == "get_attr"
    }


def features_of(node: fx.Node) -> int | None:
    """Return how many input features a layer reads, or None for a grouped convolution, which reads parts of them."""
    x, weight = (one.meta["val"].shape for one in node.args[:2])  # type: ignore[union-attr]
    size = x[READERS[node.target] % len(x)]
    return int(size) if size == weight[1] else None


def mean_activations(
    traced: TracedModel,
    lanes: Mapping[str, tuple[Lane, ...]],
    units: Mapping[str, int],
    inputs: Iterable[dict[str, Tensor]],
) -> dict[str, Tensor]:
    """Return the mean absolute feature of each unit, over rows and positions, of all readers; no reader, no entry.

    Args:
        lanes: the places of each group's units.
        units: how many units each group has.
        inputs: calibration batches.
    """
    read = {name: node for name, node in weight_readers(traced).items() if features_of(node) is not None}
    watched = {
        name: [(read[lane.tensor], lane) for lane in own if lane.tensor in read and lane.dim == 1]
        for name, own in lanes.items()
    }
    watched = {name: found for name, found in watched.items() if found}
    totals = {name: torch.zeros(units[name], dtype=torch.float64) for name in watched}
    nodes = {node for found in watched.values() for node, _ in found}
    for seen in input_features(traced, nodes, inputs, power=1):
        for name, found in watched.items():
            for node, lane in found:
                totals[name].index_add_(0, lane.unit, seen[node][lane.index])
    return totals


def input_features(
    traced: TracedModel, nodes: set[fx.Node], inputs: Iterable[dict[str, Tensor]], *, power: int
) -> Iterator[dict[fx.Node, Tensor]]:
    """Yield, batch after batch, the mean of |input feature| ** power of each layer, (features,) float64."""
    with evaluating(traced), torch.no_grad():
        for batch in inputs:
            features = _Features(traced.body, nodes, power)
            features.run(*(batch[name] for name in traced.names))
            yield features.seen


class _Features(fx.Interpreter):
    """Runs a graph and keeps the mean of |input feature| ** power of some layers, (features,) float64."""

    def __init__(self, body: fx.GraphModule, nodes: set[fx.Node], power: int) -> None:
        super().__init__(body)
        self.nodes, self.power = nodes, power
        self.seen: dict[fx.Node, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run a node; of a watched one, look at its input first."""
        if n in self.nodes:
            x = self.env[n.args[0]]  # type: ignore[index]
            dim = READERS[n.target] % x.ndim
            others = [other for other in range(x.ndim) if other != dim]
            self.seen[n] = x.abs().double().pow(self.power).mean(others)
        return super().run_node(n)
