"""Tensors of a traced graph by name: put there, and read by a node."""

import torch
from torch import Tensor, fx, nn


def put_tensor(body: fx.GraphModule, name: str, tensor: Tensor, *, parameter: bool | None = None) -> None:
    """Register a tensor under a dotted name, in the place of what stood there, making the modules on its way.

    Args:
        parameter: whether it is one; None is what stood there, and a parameter where nothing did.
    """
    path, _, last = name.rpartition(".")
    holder: nn.Module = body
    for step in path.split(".") if path else ():
        if step not in holder._modules:
            holder.add_module(step, nn.Module())
        holder = holder.get_submodule(step)
    old = getattr(holder, last, None)
    if old is not None:
        delattr(holder, last)
    as_parameter = parameter if parameter is not None else old is None or isinstance(old, nn.Parameter)
    if as_parameter:
        learns = old.requires_grad if isinstance(old, nn.Parameter) else tensor.is_floating_point()
        holder.register_parameter(last, nn.Parameter(tensor.detach().clone(), requires_grad=learns))
    else:
        holder.register_buffer(last, tensor.detach().clone())


def hold(holder: nn.Module, name: str, held: Tensor | nn.Module) -> None:
    """Put a tensor or a module itself under a dotted name, making the modules on its way.

    A tensor of a module that is held whole already is left to that.
    """
    *path, last = name.split(".")
    for step in path:
        if step not in holder._modules:
            holder.add_module(step, nn.Module())
        holder = holder.get_submodule(step)
    if isinstance(held, nn.Module):
        holder.add_module(last, held)
    elif hasattr(holder, last):
        return
    elif isinstance(held, nn.Parameter):
        holder.register_parameter(last, held)
    else:
        holder.register_buffer(last, held)


def read_tensor(body: fx.GraphModule, name: str, tensor: Tensor, before: fx.Node) -> fx.Node:
    """Put a new tensor under a name and return a node, before another one, that reads it."""
    put_tensor(body, name, tensor)
    with body.graph.inserting_before(before):
        node = body.graph.get_attr(name)
    node.meta = {"val": torch.empty_like(tensor, device="meta")}
    if "nn_module_stack" in before.meta:
        node.meta["nn_module_stack"] = before.meta["nn_module_stack"]
    return node
