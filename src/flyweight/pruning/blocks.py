"""Whole blocks of a residual stream: where a model adds x + f(x), f can go and the stream goes on.

In the traced graph a block is a sum of two values of one shape, one of which is worked out from the other. What is only
read by the branch goes with it (Veit et al. 2016, "Residual networks behave like ensembles").
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from flyweight.graph.traced import TracedModel, clean, module_of
from flyweight.pruning.calibration import Piece
from flyweight.task.scores import call_model, evaluating
from flyweight.task.task import Task

aten = torch.ops.aten
SUMS = (aten.add.Tensor, aten.add_.Tensor)


@dataclass(frozen=True)
class Block:
    """A branch of a residual stream.

    Args:
        name: the module that the branch ends in.
        add: the name of the sum's node.
        stream: which of its two arguments is the stream that goes on.
    """

    name: str
    add: str
    stream: int


def find_blocks(traced: TracedModel) -> tuple[Block, ...]:
    """Return the branches that can be taken out of residual streams, in the order in which they run."""
    ancestors: dict[fx.Node, set[fx.Node]] = {}
    found: list[Block] = []
    names: set[str] = set()
    for node in traced.body.graph.nodes:
        ancestors[node] = set().union(*({one} | ancestors[one] for one in node.all_input_nodes))
        if node.target in SUMS and len(node.all_input_nodes) == 2 and node.kwargs.get("alpha", 1) == 1:
            stream = _stream(node, ancestors)
            if stream is None or not _computes(node.args[1 - stream], node.args[stream], ancestors):
                continue
            name = _free(_ends_in(node.args[1 - stream]), names)
            names.add(name)
            found.append(Block(name, node.name, stream))
    return tuple(found)


def without_blocks(traced: TracedModel, blocks: Sequence[Block]) -> TracedModel:
    """Return a copy of a traced model without some of its blocks."""
    changed = copy.deepcopy(traced)
    nodes = {node.name: node for node in changed.body.graph.nodes}
    for block in blocks:
        node = nodes[block.add]
        node.replace_all_uses_with(node.args[block.stream])
        changed.body.graph.erase_node(node)
    clean(changed.body)
    return changed


def block_saliency(task: Task, traced: TracedModel, blocks: Sequence[Block], pieces: Sequence[Piece]) -> list[float]:
    """Return how much the loss changes without each block: the mean over pieces of the squared true change.

    That is what Taylor's expansion estimates for smaller units, in the same unit; for a whole block its first order is
    far off, and the truth costs one forward pass.
    """
    whole = _losses(task, traced, pieces)
    return [
        float((_losses(task, without_blocks(traced, [block]), pieces) - whole).square().mean()) for block in blocks
    ]


def _losses(task: Task, model: TracedModel, pieces: Sequence[Piece]) -> torch.Tensor:
    with evaluating(model), torch.no_grad():
        return torch.stack(
            [task.row_loss(call_model(model, inputs, len(y)), y).double().mean() for inputs, y in pieces]
        )


def _stream(node: fx.Node, ancestors: dict[fx.Node, set[fx.Node]]) -> int | None:
    first, second = node.args[0], node.args[1]
    if not isinstance(first, fx.Node) or not isinstance(second, fx.Node) or _shape(first) != _shape(second):
        return None
    if first in ancestors[second]:
        return 0
    return 1 if second in ancestors[first] else None


def _computes(branch: Any, stream: Any, ancestors: dict[fx.Node, set[fx.Node]]) -> bool:
    """Return whether a branch holds weights of its own between the stream and the sum."""
    own = (ancestors[branch] | {branch}) - ancestors[stream] - {stream}
    return any(node.op == "get_attr" or (node.op == "call_module") for node in own)


def _shape(node: fx.Node) -> Any:
    value = node.meta.get("val")
    return tuple(map(str, value.shape)) if isinstance(value, torch.Tensor) else node


def _ends_in(branch: Any) -> str:
    """Return the name of the module that a branch's last weight belongs to."""
    waiting = [branch]
    while waiting:
        node = waiting.pop(0)
        read = [one for one in node.all_input_nodes if one.op == "get_attr"]
        if read:
            return str(read[0].target).rpartition(".")[0] or str(read[0].target)
        waiting.extend(node.all_input_nodes[:1])
    return module_of(branch) or str(branch.name)


def _free(name: str, taken: set[str]) -> str:
    return next(one for one in (name, *(f"{name}#{n}" for n in range(2, len(taken) + 3))) if one not in taken)
