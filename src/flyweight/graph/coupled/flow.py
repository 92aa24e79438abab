"""What is known while units are followed through a graph, node by node."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx

from flyweight.graph.coupled.axes import Atom, Dim, Ids, Value, fixed, shape_of, size_of
from flyweight.graph.coupled.labels import Axis, Labels
from flyweight.graph.traced import module_of, tensor_of

Result = Value | list[Value]


@dataclass(eq=False)
class Flow:
    """A pass over a graph.

    Args:
        body: the graph.
        labels: units and what unites or freezes them.
        values: what each tensor's dimensions are made of; a list of them where a node gives several tensors.
        work: one entry for each product: its multiply-accumulates are the product of the atoms' sizes.
        parts: of nodes that count groups (of a grouped convolution), the axis whose length that count is.
        before: of nodes that take a part of an axis, the places that lie before that part.
        names: the first name of each stored tensor, by identity: a tensor of two names has one set of units.
    """

    body: fx.GraphModule
    labels: Labels
    values: dict[fx.Node, Result] = field(default_factory=dict)
    work: list[Dim] = field(default_factory=list)
    parts: dict[fx.Node, Atom] = field(default_factory=dict)
    before: dict[fx.Node, Ids] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    stored: dict[tuple[str, int], Dim] = field(default_factory=dict)

    def of(self, argument: Any) -> Value:
        """Return the dimensions of an argument; a number has none."""
        found = self.values.get(argument, ()) if isinstance(argument, fx.Node) else ()
        assert isinstance(found, tuple)
        return found

    def axis(self, name: str, dim: int) -> Dim:
        """Return a dimension of a stored tensor; its places are units of their own until something unites them."""
        tensor = tensor_of(self.body, name)
        name = self.names.setdefault(id(tensor), name)
        if (name, dim) not in self.stored:
            length = tensor.shape[dim]
            ids = self.labels.fresh(length)
            self.labels.axes.append(Axis(name, dim, ids))
            self.stored[name, dim] = () if length == 1 else (Atom(length, ids),)
        return self.stored[name, dim]

    def piece(self, node: fx.Node, dim: Dim, start: int, stop: int) -> Dim:
        """Return the places `start` to `stop` of an axis, and note for the node what lies before them."""
        ids = self.labels.flat(dim)
        if ids is not None:
            self.before[node] = ids[:start]
        return self.labels.cut_out(dim, start, stop, node.name)

    def tensor(self, name: str) -> Value:
        """Return all dimensions of a stored tensor."""
        return tuple(self.axis(name, dim) for dim in range(tensor_of(self.body, name).ndim))

    def produce(self, dim: Dim, kind: str) -> None:
        """Note that a layer computes these units: "neurons", "channels" or "embedding"."""
        self.labels.produced += [(atom.ids, kind) for atom in dim if atom.ids is not None]

    def refuse(self, node: fx.Node, why: str = "an operator that Flyweight has no rule for") -> Result:
        """Freeze all that a node reads, and return results of which nothing can be cut."""
        where = f" in module {module_of(node)}" if module_of(node) else ""
        for given in node.all_input_nodes:
            found = self.values.get(given, ())
            for value in found if isinstance(found, list) else [found]:
                self.labels.freeze(value, f"read by {node.target}{where}, {why}")
        return self.untouched(node, f"the result of {node.target}{where}")

    def untouched(self, node: fx.Node, why: str) -> Result:
        """Return results of which nothing can be cut."""
        result = node.meta.get("val")
        if isinstance(result, (list, tuple)):
            shapes = [tuple(size_of(n) for n in one.shape) if isinstance(one, Tensor) else () for one in result]
            return [fixed(shape, why) for shape in shapes]
        return fixed(shape_of(node), why) if isinstance(result, Tensor) else ()


#: What a rule is given besides the flow: the node and its arguments by their names in the operator's schema.
Rule = Callable[[Flow, fx.Node, dict[str, Any]], Result]


def arguments(node: fx.Node) -> dict[str, Any]:
    """Return an operator's arguments by name, defaults filled in."""
    found: dict[str, Any] = {}
    for number, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if number < len(node.args):
            found[argument.name] = node.args[number]
        else:
            found[argument.name] = node.kwargs.get(argument.name, argument.default_value)
    return found


def place(dim: int, ndim: int) -> int:
    """Return a dimension counted from the front."""
    return dim + ndim if dim < 0 else dim
