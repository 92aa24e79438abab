"""How few multiply-accumulates low ranks can leave of a model, read off its shapes alone."""

import torch
from torch import fx

from flyweight.cost.macs import count_macs
from flyweight.graph.trace import trace
from flyweight.graph.traced import tensor_of
from flyweight.pruning.calibration import first_inputs
from flyweight.task.task import Task


def least_macs(task: Task, multiple: int) -> int:
    """Return the multiply-accumulates of one row with ranks of `multiple` in every linear layer that gains by it.

    Raises:
        ExportError: the model cannot be traced; names the line.
    """
    inputs = first_inputs(task)
    traced = trace(task.model, inputs)
    rows = len(next(iter(inputs.values())))
    total = count_macs(traced, inputs, rows).total
    for node in traced.body.graph.find_nodes(op="call_function", target=torch.ops.aten.linear.default):
        weight = node.args[1]
        if not isinstance(weight, fx.Node) or weight.op != "get_attr" or len(weight.users) != 1:
            continue
        out, wide = tensor_of(traced.body, str(weight.target)).shape
        vectors = max(1, node.meta["val"].numel() // out // rows)
        total -= vectors * max(out * wide - min(multiple, out, wide) * (out + wide), 0)
    return total
