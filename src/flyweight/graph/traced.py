"""A traced model: its operators as a graph that can be looked at and changed, and a module like any other."""

import torch
from torch import Tensor, fx, nn

aten = torch.ops.aten
#: Operators that act otherwise in training, with the place of the argument that says so.
MODES = {aten.dropout.default: 2, aten.dropout_.default: 2, aten.batch_norm.default: 5}


class TracedModel(nn.Module):
    """A model as a graph of operators.

    `body` is a `torch.fx.GraphModule` whose placeholders are the inputs in order. Weights are read by nodes `get_attr`
    under the names that they had in the model it was traced from. `train()` and `eval()` switch dropout and batch
    norm, as in any module.

    Args:
        body: the graph; the nodes' `meta["val"]` say the shapes.
        names: the inputs, in the order of the placeholders.
    """

    body: fx.GraphModule

    def __init__(self, body: fx.GraphModule, names: tuple[str, ...]) -> None:
        super().__init__()
        self.body = body
        self.names = names
        self.train(False)

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return what the model returned for the same inputs."""
        scores: Tensor = self.body(*(inputs[name] for name in self.names))
        return scores

    def train(self, mode: bool = True) -> "TracedModel":
        """Switch dropout and batch norm to training, or back."""
        super().train(mode)
        self.follow_mode()
        return self

    def follow_mode(self) -> None:
        """Bring the graph's operators in line with `training`, which may have been set from outside."""
        changed = False
        for node in self.body.graph.nodes:
            place = MODES.get(node.target)
            if place is not None and node.args[place] != self.training:
                node.update_arg(place, self.training)
                changed = True
        if changed:
            self.body.recompile()


def module_of(node: fx.Node) -> str:
    """Return the dotted name of the innermost module that a node was traced in; "" for the model itself."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]).split("@")[0].removeprefix("model").removeprefix(".") if stack else ""


def tensor_of(body: fx.GraphModule, name: str) -> Tensor:
    """Return the parameter or buffer of a dotted name.

    Raises:
        AttributeError: there is none.
    """
    path, _, last = name.rpartition(".")
    found = getattr(body.get_submodule(path), last)
    assert isinstance(found, Tensor)
    return found


def clean(body: fx.GraphModule) -> None:
    """Drop nodes and tensors that nothing reads any more, and compile what is left."""
    body.graph.eliminate_dead_code()
    body.delete_all_unused_submodules()
    read = {str(node.target) for node in body.graph.nodes if node.op == "get_attr"}
    called = {str(node.target) for node in body.graph.nodes if node.op == "call_module"}
    for path, module in list(body.named_modules()):
        if any(path == name or path.startswith(f"{name}.") for name in called):
            continue
        for store in (module._parameters, module._buffers):
            for name in [name for name in store if (f"{path}.{name}" if path else name) not in read]:
                del store[name]
    body.graph.lint()
    body.recompile()
