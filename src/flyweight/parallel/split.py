"""One stage of a model as a module of its own: its operators, the tensors it is sent, the inputs it reads."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx, nn

from flyweight.graph.tensors import hold
from flyweight.graph.traced import TracedModel, clean, tensor_of
from flyweight.parallel.cuts import Cut, free_of_rows, operators_of, table_weights

aten = torch.ops.aten


class _SentBack(torch.autograd.Function):
    """The identity, whose gradients lie in memory as what is sent must."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].contiguous()


def _sent_back(x: Tensor) -> Tensor:
    if not (torch.is_grad_enabled() and x.requires_grad):
        return x
    result: Tensor = _SentBack.apply(x)  # type: ignore[no-untyped-call]
    return result


class StageModule(nn.Module):
    """A stage: called with the tensors of the stage before and the inputs that it reads itself.

    Args:
        traced: the stage's graph; its first inputs are what is sent, the others are the model's.
        received: how many are sent.
    """

    def __init__(self, traced: TracedModel, received: int) -> None:
        super().__init__()
        self.traced = traced
        self.received = traced.names[:received]
        self.reads = traced.names[received:]

    def forward(self, *sent: Tensor, **inputs: Tensor) -> Any:
        """Return the tensors for the next stage, or the model's output."""
        given = [_sent_back(one) for one in sent]
        made: Any = self.traced(**dict(zip(self.received, given, strict=True)), **inputs)
        return tuple(one.contiguous() for one in made) if isinstance(made, tuple) else made  # what can be sent


def stage_module(traced: TracedModel, begin: Cut | None, end: Cut | None) -> StageModule:
    """Return the operators between two cuts as a module; weights are shared with the model, not copied.

    Args:
        traced: the whole model, left as it is.
        begin, end: the cuts before and behind the stage; None for the start and the end of the model.
    """
    body = traced.body
    operators = operators_of(body)
    free = free_of_rows(body)
    first, last = 0 if begin is None else begin.after + 1, len(operators) - 1 if end is None else end.after
    own = [node for node in operators[first : last + 1] if node not in free]
    by_name = {node.name: node for node in operators}
    received = [] if begin is None else [by_name[name] for name in begin.values]
    (output,) = body.graph.find_nodes(op="output")
    handed = [output.args[0]] if end is None else [by_name[name] for name in end.values]
    needed = _needed(own, free)
    inputs = [node for node in body.graph.find_nodes(op="placeholder") if node in needed or node in handed]

    tables = table_weights(body)
    graph, holder = fx.Graph(), nn.Module()
    copies: dict[fx.Node, fx.Node] = {}
    names = []
    for node in (*received, *inputs):
        copies[node] = graph.placeholder(node.name)
        copies[node].meta = dict(node.meta)
        names.append(node.name if node in received else _input_name(traced, node))
    rows = next(iter(copies))
    for node in body.graph.nodes:
        if node in copies or not (node in needed or node in own or node in handed):
            continue
        if node.target is aten.sym_size.int and node in free and node.args[0] not in copies:
            copies[node] = graph.call_function(aten.sym_size.int, (copies[rows], 0))  # as many as any tensor of rows
            copies[node].meta = dict(node.meta)
            continue
        if node.op == "get_attr":
            tensor = tensor_of(body, str(node.target))
            if id(tensor) in tables:  # of a table that another stage may look rows up in: read here, never trained
                tensor = nn.Parameter(tensor.detach(), requires_grad=False)
            hold(holder, str(node.target), tensor)
        elif node.op == "call_module":
            hold(holder, str(node.target), body.get_submodule(str(node.target)))
        copies[node] = graph.node_copy(node, lambda one: copies[one])
    graph.output(copies[handed[0]] if end is None else tuple(copies[node] for node in handed))
    graph.set_codegen(fx.graph.CodeGen())
    made = fx.GraphModule(holder, graph)
    clean(made)
    stage = TracedModel(made, tuple(names))
    return StageModule(stage.train(traced.training), len(received))


def _needed(own: Iterable[fx.Node], free: set[fx.Node]) -> set[fx.Node]:
    """Return what a stage's operators read: weights, inputs, and what any stage can work out, with what that reads."""
    found: set[fx.Node] = set()
    stack = [one for node in own for one in node.all_input_nodes]
    while stack:
        node = stack.pop()
        if node in found or not (node in free or node.op in ("get_attr", "placeholder")):
            continue
        found.add(node)
        if node.target is not aten.sym_size.int:  # asked of another tensor, where that is not at hand
            stack += node.all_input_nodes
    return found


def _input_name(traced: TracedModel, node: fx.Node) -> str:
    names: dict[fx.Node, str] = dict(zip(traced.body.graph.find_nodes(op="placeholder"), traced.names, strict=True))
    return names[node]
