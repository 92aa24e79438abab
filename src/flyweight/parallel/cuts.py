"""Where a model can be taken apart in two stages: what would have to be sent there, and why elsewhere it cannot be.

A cut lies between two operators of the traced graph, in the order in which they run. What the operators before it made
and those behind it read is sent, row by row, so that a batch can be cut into micro-batches. Inputs are not sent: a
stage that reads one is given it. What depends on constants or on the number of rows alone is worked out by both sides.
"""

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, fx, nn

from flyweight.distillation.working import TABLES
from flyweight.graph.traced import TracedModel, tensor_of

aten = torch.ops.aten


@dataclass(frozen=True)
class Cut:
    """A place where a graph can be taken apart.

    Args:
        after: number of the last operator before it.
        values: names of the nodes whose tensors are sent.
        bytes: of one row of all of them.
    """

    after: int
    values: tuple[str, ...]
    bytes: int


@dataclass(frozen=True)
class Cuts:
    """All places between two operators of a graph.

    Args:
        operators: how many operators there are.
        legal: where it can be taken apart, in order.
        refused: why not, by the number of the operator before each other place.
    """

    operators: int
    legal: tuple[Cut, ...]
    refused: dict[int, str]

    def reasons(self) -> dict[str, int]:
        """Return how many places each reason rules out, the most frequent first."""
        counts: dict[str, int] = {}
        for reason in self.refused.values():
            counts[reason] = counts.get(reason, 0) + 1
        return dict(sorted(counts.items(), key=lambda one: -one[1]))


def operators_of(body: fx.GraphModule) -> list[fx.Node]:
    """Return the nodes of a graph that compute something, in an order in which they can run.

    It is the graph's, but for what is made of weights alone, as the rounded weights of a quantised model are: that
    comes right before it is first read, so that it and its weights are of the stage that reads it.
    """
    nodes = [node for node in body.graph.nodes if node.op in ("call_function", "call_module", "call_method")]
    of_weights = _made_of_weights(nodes)
    placed: dict[fx.Node, None] = {}

    def place(node: fx.Node) -> None:
        for one in node.all_input_nodes:
            if one in of_weights and one not in placed:
                place(one)
        placed[node] = None

    for node in nodes:
        if node not in of_weights:
            place(node)
    placed.update(dict.fromkeys(nodes))  # made of weights, and read by nothing but the output
    return list(placed)


def _made_of_weights(nodes: list[fx.Node]) -> set[fx.Node]:
    """Return the operators that read weights and constants alone."""
    found: set[fx.Node] = set()
    for node in nodes:
        read = node.all_input_nodes
        if read and all(one in found or one.op == "get_attr" for one in read):
            found.add(node)
    return found


def find_cuts(traced: TracedModel) -> Cuts:
    """Return where a model can be taken apart."""
    body = traced.body
    operators = operators_of(body)
    place = {node: number for number, node in enumerate(operators)}
    (output,) = body.graph.find_nodes(op="output")
    place[output] = len(operators)
    free = free_of_rows(body)
    last = {
        node: max((place[user] for user in node.users if user not in free), default=-1)
        for node in operators
        if node not in free
    }
    held, made = _held_on_both_sides(body, place), _made_of_weights(operators)
    weights = sorted(place[node] for node in operators if _holds_weights(body, node)) or [0]
    legal, refused = [], {}
    for after in range(len(operators) - 1):
        crossing = [node for node in operators[: after + 1] if node in last and last[node] > after]
        early = [f"{one.name}, made of weights, is read behind it" for one in crossing if one in made]
        why = next((why for why in (held.get(after), *early, *map(_not_by_row, crossing)) if why), None)
        if why is None and any(_is_written_over(node, place, after) for node in crossing):
            why = "what would have to be sent is changed in place behind it"
        if why is None and not weights[0] <= after < weights[-1]:
            why = "all weights lie on one side"
        if not crossing and why is None:
            why = "nothing that it computes is read behind it"
        if why is None:
            legal.append(Cut(after, tuple(node.name for node in crossing), sum(map(_row_bytes, crossing))))
        else:
            refused[after] = why
    return Cuts(len(operators), tuple(legal), refused)


def free_of_rows(body: fx.GraphModule) -> set[fx.Node]:
    """Return operators whose results hang on constants and the number of rows alone: any stage can work them out.

    A table is a constant, for no recovery trains it: a quantised one that scores too is rounded by both its readers.
    """
    tables = table_weights(body)

    def fixed(node: fx.Node) -> bool:
        return _is_constant(body, node) or (node.op == "get_attr" and id(tensor_of(body, str(node.target))) in tables)

    found: set[fx.Node] = set()
    for node in operators_of(body):
        if node.op == "call_module" and any(True for _ in body.get_submodule(str(node.target)).parameters()):
            continue
        if _counts_rows(node) or all(one in found or fixed(one) for one in node.all_input_nodes):
            found.add(node)
    return found


def table_weights(body: fx.GraphModule) -> set[int]:
    """Return the `id`s of the weights of embedding tables, which no recovery trains."""
    return {id(module.weight) for module in body.modules() if isinstance(module, TABLES)}


def _counts_rows(node: fx.Node) -> bool:
    """Return whether a node asks a tensor of rows how many there are."""
    if node.target is not aten.sym_size.int or node.args[1] != 0:
        return False
    source = node.args[0]
    return isinstance(source, fx.Node) and isinstance(source.meta.get("val"), Tensor)


def _is_constant(body: fx.GraphModule, node: fx.Node) -> bool:
    return node.op == "get_attr" and not isinstance(tensor_of(body, str(node.target)), nn.Parameter)


def _holds_weights(body: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return any(True for _ in body.get_submodule(str(node.target)).parameters())
    return any(one.op == "get_attr" and not _is_constant(body, one) for one in node.all_input_nodes)


def _not_by_row(node: fx.Node) -> str | None:
    """Return why a value cannot be sent row by row; None where it can."""
    value: Any = node.meta.get("val")
    if not isinstance(value, Tensor):
        return "a value that is no tensor would have to be sent"
    shape: list[Any] = list(value.shape)
    if not shape or not isinstance(shape[0], torch.SymInt):
        return "a tensor without a row for each row of the batch would have to be sent"
    if not shape[0].node.expr.is_Symbol:
        return "a tensor with several rows for each row of the batch would have to be sent"
    if any(isinstance(size, torch.SymInt) for size in shape[1:]):
        return "a tensor whose size hangs on the data would have to be sent"
    return None


def _is_written_over(node: fx.Node, place: dict[fx.Node, int], after: int) -> bool:
    """Return whether an operator behind a cut writes into a value that it is sent, which then has no gradient."""
    behind = [user for user in node.users if place[user] > after and user.op == "call_function"]
    return any(user.args[0] is node and _writes(user.target) for user in behind)


def _writes(target: Any) -> bool:
    return hasattr(target, "_schema") and bool(target._schema.is_mutable)


def _row_bytes(node: fx.Node) -> int:
    value: Tensor = node.meta["val"]
    return prod(int(size) for size in value.shape[1:]) * value.element_size()


def _held_on_both_sides(body: fx.GraphModule, place: dict[fx.Node, int]) -> dict[int, str]:
    """Return the places with a weight on both sides: each is held, and trained, by one stage.

    Tables may be on both: they are not trained (an item table that scores is held by the last stage as well).
    """
    of_tables = table_weights(body)
    readers: dict[int, list[int]] = {}
    names: dict[int, str] = {}
    for node in body.graph.nodes:
        if node.op == "get_attr" and not _is_constant(body, node):
            held = {str(node.target): tensor_of(body, str(node.target))}
            at = [place[user] for user in node.users if user in place]
        elif node.op == "call_module":
            module = body.get_submodule(str(node.target))
            held = {f"{node.target}.{name}": value for name, value in [*module.named_parameters()]}
            at = [place[node]]
        else:
            continue
        for name, value in held.items():  # a table may be called, and its weight read as well
            readers.setdefault(id(value), []).extend(at)
            names.setdefault(id(value), name)
    found: dict[int, str] = {}
    for key, at in readers.items():
        if key in of_tables:
            continue
        for after in range(min(at, default=0), max(at, default=0)):
            found.setdefault(after, f"{names[key]} is read on both sides")
    return found
