"""Lookups set aside: candidates that differ in their layers alone share their tables, which take most of an export.

A ranker with 25 coded tables takes about 5 s of computing to be written, its layers alone 1 s.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, fx

from flyweight.graph.trace import trace
from flyweight.graph.traced import TracedModel, clean
from flyweight.quantization.observe import Inputs
from flyweight.quantization.sites import QUANTIZERS

aten = torch.ops.aten


def lookups(traced: TracedModel, inputs: Inputs) -> dict[str, Tensor]:
    """Return what a call looks up in tables by inputs just as they come in, by the names of the nodes.

    Only what has a row for each row of the outputs.
    """
    body = traced.body
    given = {node: inputs[name] for node, name in _inputs_of(traced).items()}
    found: dict[str, Tensor] = {}
    with torch.no_grad():
        rows = len(traced(**inputs))
        for node in body.graph.find_nodes(op="call_module"):
            plain = all(one in given for one in node.args) and not node.kwargs
            if plain and not str(node.target).startswith(f"{QUANTIZERS}."):
                value = body.get_submodule(str(node.target))(*(given[one] for one in node.args))
                if value.ndim > 1 and len(value) == rows:
                    found[node.name] = value
    return found


def without_lookups(traced: TracedModel, inputs: Inputs, found: Mapping[str, Tensor]) -> tuple[TracedModel, Inputs]:
    """Return a copy that takes what some lookups give as inputs, and the inputs of the same call for it.

    Args:
        traced: left as it is.
        inputs: of a call; found: some of its `lookups`.
    """
    copied = trace(traced, {})
    graph = copied.body.graph
    names = _inputs_of(copied)
    last = list(names)[-1]
    given = dict(inputs)
    for node in [node for node in graph.nodes if node.name in found]:
        with graph.inserting_after(last):
            last = graph.placeholder(f"looked_up_{node.name}")
        last.meta = {"val": node.meta["val"]}
        names[last] = last.name
        given[last.name] = found[node.name]
        node.replace_all_uses_with(last)
        graph.erase_node(node)
    return _finished(copied, names, given)


def lookups_alone(traced: TracedModel, inputs: Inputs, found: Mapping[str, Tensor]) -> tuple[TracedModel, Inputs]:
    """Return a copy that gives nothing but what some lookups give, side by side, (rows, width), and its inputs."""
    copied = trace(traced, {})
    graph = copied.body.graph
    names = _inputs_of(copied)
    (output,) = graph.find_nodes(op="output")
    with graph.inserting_before(output):
        flat = [
            graph.call_function(aten.flatten.using_ints, (node, 1)) for node in graph.nodes if node.name in found
        ]
        output.args = (graph.call_function(aten.cat.default, (flat, 1)),)
    return _finished(copied, names, dict(inputs))


def _inputs_of(traced: TracedModel) -> dict[fx.Node, str]:
    return dict(zip(traced.body.graph.find_nodes(op="placeholder"), traced.names, strict=True))


def _finished(copied: TracedModel, names: dict[fx.Node, str], given: Inputs) -> tuple[TracedModel, Inputs]:
    """Drop the inputs that nothing reads any more."""
    graph = copied.body.graph
    graph.eliminate_dead_code()
    left = []
    for node in graph.find_nodes(op="placeholder"):
        if node.users:
            left.append(names[node])
        else:
            graph.erase_node(node)
    clean(copied.body)
    return TracedModel(copied.body, tuple(left)), {name: given[name] for name in left}
