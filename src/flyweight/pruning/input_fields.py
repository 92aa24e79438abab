"""The inputs of a traced model that can be left out, and the model without them: what they gave becomes its mean.

What only one input gives (a looked-up row, a scaled number) ends where it meets the others: those values, the input's
fronts, are what is replaced.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from flyweight.graph.traced import TracedModel, clean
from flyweight.pruning.calibration import Piece
from flyweight.pruning.gradients import checked_loss
from flyweight.task.scores import evaluating
from flyweight.task.task import Task

aten = torch.ops.aten


@dataclass(frozen=True, eq=False)
class Droppable:
    """An input that can be left out.

    Args:
        name: of the input.
        fronts: the names of the nodes that its mean replaces.
    """

    name: str
    fronts: tuple[str, ...]


def find_fields(traced: TracedModel) -> tuple[tuple[Droppable, ...], dict[str, str]]:
    """Return the inputs that can be left out, and why others cannot, by name."""
    placeholders = traced.body.graph.find_nodes(op="placeholder")
    sources: dict[fx.Node, frozenset[fx.Node]] = {}
    for node in traced.body.graph.nodes:
        own = frozenset({node}) if node.op == "placeholder" else frozenset()
        sources[node] = own.union(*(sources[one] for one in node.all_input_nodes))
    found, left = [], {}
    for name, placeholder in zip(traced.names, placeholders, strict=True):
        fronts = _fronts(placeholder, sources)
        why = _refusal(placeholder, fronts, placeholders)
        if why:
            left[name] = why
        else:
            found.append(Droppable(name, tuple(node.name for node in fronts)))
    return tuple(found), left


def measure_fields(
    task: Task, traced: TracedModel, fields: Sequence[Droppable], pieces: Iterable[Piece]
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Return how much the loss would rise without each input, to first order, and the mean of each front.

    The rise is the mean over rows of `gradient . (mean - value)`, summed over the input's fronts and squared by piece
    as unit saliencies are (Zhang et al. 2023, "SHARK", arXiv 2308.11105, section 3.1).

    Raises:
        InputError: the task's loss cannot be computed or has no gradient.
    """
    fronts = [name for one in fields for name in one.fronts]
    passes = [_pass(task, traced, fronts, inputs, target) for inputs, target in pieces]
    rows = sum(len(next(iter(values.values()))) for values, _ in passes)
    means = {name: sum(values[name].sum(0) for values, _ in passes) / rows for name in fronts}
    rises = {
        one.name: sum(
            float(sum(((means[name] - values[name]) * slopes[name]).sum() for name in one.fronts)) ** 2
            for values, slopes in passes
        )
        / len(passes)
        for one in fields
    }
    return rises, {name: torch.as_tensor(mean) for name, mean in means.items()}


def without_fields(traced: TracedModel, fields: Sequence[Droppable], means: Mapping[str, Tensor]) -> TracedModel:
    """Return a copy of a traced model that no longer takes some inputs; it ignores them where they are given."""
    changed = copy.deepcopy(traced)
    graph = changed.body.graph
    gone = {field.name for field in fields}
    placeholders = dict(zip(changed.names, graph.find_nodes(op="placeholder"), strict=True))
    length = {_rows(node): node for name, node in placeholders.items() if name not in gone}
    nodes = {node.name: node for node in graph.nodes}
    for field in fields:
        for front in field.fronts:
            _replace(changed.body, nodes[front], means[front], length[_rows(nodes[front])])
    graph.eliminate_dead_code()
    for name in gone:
        assert not placeholders[name].users
        graph.erase_node(placeholders[name])
    changed.names = tuple(name for name in changed.names if name not in gone)
    clean(changed.body)
    return changed


def _fronts(placeholder: fx.Node, sources: Mapping[fx.Node, frozenset[fx.Node]]) -> list[fx.Node]:
    """Return the last nodes that depend on one input alone."""
    alone = frozenset({placeholder})
    return [
        node for node, own in sources.items() if own == alone and any(sources[user] != alone for user in node.users)
    ]


def _refusal(placeholder: fx.Node, fronts: Sequence[fx.Node], placeholders: Sequence[fx.Node]) -> str:
    if not fronts:
        return "the model is a function of it alone" if placeholder.users else "the model does not read it"
    for node in fronts:
        value = node.meta.get("val")
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return "its ids meet other inputs before they are looked up, so there is no mean to put in their place"
        if not value.ndim or _rows(node) is None:
            return "what the model makes of it has no row for each row of the batch"
    others = {_rows(other) for other in placeholders if other is not placeholder}
    if not {_rows(node) for node in fronts} <= others:
        return "no other input says how many rows a batch has"
    return ""


def _rows(node: fx.Node) -> str | None:
    """Return the open first dimension of a node's value, as a word; None where it is fixed."""
    value = node.meta.get("val")
    rows: object = value.shape[0] if isinstance(value, Tensor) and value.ndim else None
    return None if rows is None or isinstance(rows, int) else str(rows)


def _pass(
    task: Task, traced: TracedModel, fronts: Sequence[str], inputs: dict[str, Tensor], target: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return each front's value and the loss's gradient there, for one piece."""
    watched = _Fronts(traced.body, set(fronts))
    with evaluating(traced), torch.enable_grad():
        outputs = watched.run(*(inputs[name] for name in traced.names))
        outputs = outputs.squeeze(1) if outputs.ndim == 2 and outputs.shape[1] == 1 else outputs
        loss = checked_loss(task, outputs, target, "taylor")
        leaves = [watched.leaves[name] for name in fronts]
        slopes = torch.autograd.grad(loss, leaves, allow_unused=True)
    values = {name: leaf.detach() for name, leaf in zip(fronts, leaves, strict=True)}
    return values, {
        name: torch.zeros_like(values[name]) if slope is None else slope
        for name, slope in zip(fronts, slopes, strict=True)
    }


class _Fronts(fx.Interpreter):
    """Runs a graph with some nodes' values as leaves that want gradients."""

    def __init__(self, body: fx.GraphModule, watched: set[str]) -> None:
        super().__init__(body)
        self.watched = watched
        self.leaves: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run a node; a watched one's value is cut off from what it was made of."""
        value = super().run_node(n)
        if n.name in self.watched:
            value = self.leaves[n.name] = value.detach().requires_grad_(True)
        return value


def _replace(body: fx.GraphModule, node: fx.Node, mean: Tensor, like: fx.Node) -> None:
    """Put a constant, as many rows of it as another input has, in a node's place."""
    name = f"mean_of_{node.name}"
    body.register_buffer(name, mean.detach().clone().unsqueeze(0))
    with body.graph.inserting_after(like):
        constant = body.graph.get_attr(name)
        constant.meta = {"val": mean.unsqueeze(0)}
    with body.graph.inserting_after(constant):
        rows = body.graph.call_function(aten.sym_size.int, (like, 0))
        rows.meta = {"val": node.meta["val"].shape[0]}
    with body.graph.inserting_after(rows):
        spread = body.graph.call_function(aten.expand.default, (constant, [rows, *mean.shape]))
        spread.meta = dict(node.meta)
    node.replace_all_uses_with(spread)
