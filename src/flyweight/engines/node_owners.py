"""Which module of a model each node of its exported file works for, told by the weights that it reads."""

from collections.abc import Collection, Iterable
from pathlib import Path

import onnx
from onnx import GraphProto, NodeProto

from flyweight.engines.executed import MULTIPLYING

#: The exporter calls weights by their names in a wrapper; a traced model keeps them in its body.
_WRAPPER, _TRACED = "model.", "body"
#: Of what several modules' results went into.
_MIXED = None


def node_owners(path: Path, modules: Collection[str]) -> dict[str, str]:
    """Return the module that each node works for, by the node's name; those that work for several are left out.

    A node that reads a weight works for the weight's module: a product for its layer, a gather for its table. One that
    reads results works for the module that they come from, or for the innermost one around all of those: an activation
    for the layer before it, a concatenation of tables for the list of tables, the scores of an attention for the
    attention. "" is the model itself.

    Args:
        path: a file of `export_onnx`.
        modules: names of the model's modules.

    Example: of `nn.Sequential(nn.Linear(3, 2), nn.ReLU())` both nodes are module "0"'s.
    """
    graph = onnx.load(path, load_external_data=False).graph
    return _Walk(graph, modules).owners()


class _Walk:
    """One walk through a graph, in its order."""

    def __init__(self, graph: GraphProto, modules: Collection[str]) -> None:
        self.graph, self.modules = graph, modules
        self.constants = {one.name for one in graph.initializer}
        self.weights = {
            one.name: self._module(one.name) for one in graph.initializer if one.name.startswith(_WRAPPER)
        }
        #: By value: the module that it comes from, or `_MIXED`. What is made of inputs alone (a mask) is left out.
        self.results: dict[str, str | None] = {}

    def owners(self) -> dict[str, str]:
        found = {node.name: owner for node in self.graph.node if (owner := self._owner(node)) is not None}
        return found | self._of_nameless_weights()

    def _owner(self, node: NodeProto) -> str | None:
        own: list[str | None] = [self.weights[name] for name in node.input if name in self.weights]
        read = own[:1] or [self.results[name] for name in node.input if name in self.results]
        if not read:
            return None
        owner = self._around(read)
        self.results.update(dict.fromkeys(node.output, owner))
        return owner

    def _around(self, owners: Iterable[str | None]) -> str | None:
        """The innermost module around several; `_MIXED` where that is the model. What is the model's own goes along."""
        kinds = set(owners)
        if len(kinds) > 1:
            kinds.discard("")
        if len(kinds) == 1 or _MIXED in kinds:
            return next(iter(kinds)) if len(kinds) == 1 else _MIXED
        paths = [str(one).split(".") for one in kinds]
        shared = []
        for steps in zip(*paths, strict=False):
            if len(set(steps)) > 1:
                break
            shared.append(steps[0])
        return ".".join(shared) or _MIXED

    def _of_nameless_weights(self) -> dict[str, str]:
        """Products whose weight was turned before it was written and so lost its name: the bias added next has one."""
        after = {name: node for node in self.graph.node for name in node.input}
        return {
            node.name: self.weights[bias]
            for node in self.graph.node
            if node.op_type in MULTIPLYING
            and any(name in self.constants and name not in self.weights for name in node.input)
            and (adds := after.get(node.output[0])) is not None
            and adds.op_type == "Add"
            and (bias := next((name for name in adds.input if name in self.weights), None)) is not None
        }

    def _module(self, weight: str) -> str:
        module = weight.removeprefix(_WRAPPER).rpartition(".")[0]
        if module in self.modules:
            return module
        return "" if module == _TRACED else module.removeprefix(f"{_TRACED}.")
