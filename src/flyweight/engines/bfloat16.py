"""Products of matrices in bfloat16: eight bits of every factor are kept, sums are in float32."""

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, fx, nn


def in_bfloat16(module: "nn.Module", device: str) -> "nn.Module":
    """Return a module that multiplies in bfloat16 on a device ("cpu", "cuda") and returns float32 scores."""
    import torch
    from torch import Tensor, nn

    class InBfloat16(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, *values: "Tensor") -> "Tensor":
            with torch.autocast(device, dtype=torch.bfloat16):
                scores: Tensor = self.model(*values)
            return scores.float()

    return InBfloat16(module)


def round_layers(module: "nn.Module") -> None:
    """Keep weights that one linear or convolution alone reads in bfloat16: half as many bytes in each call."""
    import torch
    from torch import nn

    readers = Counter(id(one) for _, one in module.named_parameters(remove_duplicate=False))
    for layer in module.modules():
        products = isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))
        if products and all(readers[id(one)] == 1 for one in layer.parameters()):
            layer.to(torch.bfloat16)


def round_graph(module: "fx.GraphModule") -> None:
    """Do the same to a traced module, whose layers are operators that read attributes."""
    import torch
    from torch import fx

    products = {torch.ops.aten.linear.default, torch.ops.aten.conv1d.default, torch.ops.aten.conv2d.default}
    read = [node for node in module.graph.nodes if node.op == "get_attr"]
    readers = Counter(id(_held(module, node)) for node in read for _ in node.users)
    for node in module.graph.nodes:
        if node.target not in products:
            continue
        for operand in node.args[1:3]:  # weight and bias
            if isinstance(operand, fx.Node) and operand.op == "get_attr":
                tensor = _held(module, operand)
                if readers[id(tensor)] == 1:
                    tensor.data = tensor.data.to(torch.bfloat16)


def _held(module: "nn.Module", node: "fx.Node") -> "Tensor":
    owner, _, name = str(node.target).rpartition(".")
    held: Tensor = getattr(module.get_submodule(owner), name)
    return held
