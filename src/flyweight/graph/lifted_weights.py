"""Weights that a trace took for constants, as Keras's: named again, and their products written as layers.

A Keras model on PyTorch reads its variables past `nn.Module`, so the trace holds them as nameless constants, converts
every value to the type that it has, and multiplies by (in, out) kernels. Here they become parameters under
their own names, with `aten.linear` and (out, in) weights, as the rest of the library knows them.
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx, nn

from flyweight.graph.traced import tensor_of

aten = torch.ops.aten
_CASTS = (aten.to.dtype, aten.to.dtype_layout, aten._to_copy.default)
_PRODUCTS = (aten.matmul.default, aten.mm.default)
#: Operators that only turn a weight; done once, on the weight.
_TURNS: Mapping[Any, Callable[..., Tensor]] = MappingProxyType({
    aten.permute.default: torch.permute,
    aten.transpose.int: torch.transpose,
    aten.t.default: torch.t,
    aten.numpy_T.default: lambda weight: weight.T,
})  # fmt: skip


def restore_lifted(body: fx.GraphModule, model: nn.Module) -> None:
    """Name the constants of a graph that are weights of the model, in place; a graph without any is left as it is."""
    owners = {_place(tensor): name for name, tensor in model.named_parameters()}
    lifted = [
        node
        for node in body.graph.find_nodes(op="get_attr")
        if not isinstance(tensor := tensor_of(body, str(node.target)), nn.Parameter) and _place(tensor) in owners
    ]
    if not lifted:
        return
    for node in lifted:
        tensor = tensor_of(body, str(node.target))
        _hold(body, node, plain_name(owners[_place(tensor)]), tensor.detach().clone())
    _drop_casts(body)
    for node in lifted:
        _turn(body, node)
    for node in lifted:
        _write_linear(body, node)
    body.graph.eliminate_dead_code()


def plain_name(name: str) -> str:
    """Return a name as a dotted path.

    Example:
        >>> plain_name("_functional._torch_params.sequential/dense_1/kernel")
        'sequential.dense_1.kernel'
    """
    return re.sub(r"[^\w.]", "_", name.rpartition("_torch_params.")[2].replace("/", "."))


def _place(tensor: Tensor) -> tuple[int, torch.Size, tuple[int, ...]]:
    return tensor.data_ptr(), tensor.shape, tensor.stride()


def _hold(body: fx.GraphModule, node: fx.Node, name: str, tensor: Tensor) -> None:
    """Let a node read a parameter of this name and value."""
    *path, last = name.split(".")
    holder: nn.Module = body
    for step in path:
        if step not in holder._modules:
            holder.add_module(step, nn.Module())
        holder = holder.get_submodule(step)
    holder.register_parameter(last, nn.Parameter(tensor, requires_grad=tensor.is_floating_point()))
    node.target = name
    node.meta["val"] = node.meta["val"].new_empty(tensor.shape) if "val" in node.meta else tensor


def _drop_casts(body: fx.GraphModule) -> None:
    """Take out conversions to the type that a value has already."""
    for node in list(body.graph.nodes):
        if node.target in _CASTS and node.meta["val"].dtype == node.args[0].meta["val"].dtype:
            node.replace_all_uses_with(node.args[0])
            body.graph.erase_node(node)


def _turn(body: fx.GraphModule, node: fx.Node) -> None:
    """Turn a weight once where all that read it turn it alike first."""
    users = list(node.users)
    first = users[0] if users else None
    if first is None or first.target not in _TURNS or any(
        (user.target, user.args[1:]) != (first.target, first.args[1:]) for user in users
    ):  # fmt: skip
        return
    turned = _TURNS[first.target](tensor_of(body, str(node.target)), *first.args[1:]).contiguous()
    _hold(body, node, str(node.target), turned)
    for user in users:
        user.replace_all_uses_with(node)
        body.graph.erase_node(user)


def _write_linear(body: fx.GraphModule, node: fx.Node) -> None:
    """Write products with an (in, out) weight as `aten.linear`, a vector that is added to one as its bias."""
    weight = tensor_of(body, str(node.target))
    users = list(node.users)
    if weight.ndim != 2 or not users or any(user.target not in _PRODUCTS or user.args[1] is not node for user in users):
        return
    _hold(body, node, str(node.target), weight.detach().t().contiguous())
    for product in users:
        total, bias = _bias(body, product, weight.shape[1])
        with body.graph.inserting_before(total):
            given = (product.args[0], node) if bias is None else (product.args[0], node, bias)
            linear = body.graph.call_function(aten.linear.default, given)
        linear.meta = {**total.meta, "nn_module_stack": _stack(product, str(node.target).rpartition(".")[0])}
        total.replace_all_uses_with(linear)
        for old in dict.fromkeys((total, product)):
            body.graph.erase_node(old)


def _bias(body: fx.GraphModule, product: fx.Node, width: int) -> tuple[fx.Node, fx.Node | None]:
    """Return the sum that a product goes into and the vector that is added; or the product alone."""
    (user, *others) = product.users
    if others or user.target is not aten.add.Tensor or user.kwargs:
        return product, None
    (other,) = [one for one in user.args if one is not product] or [None]
    if not isinstance(other, fx.Node) or other.op != "get_attr":
        return product, None
    return (user, other) if tensor_of(body, str(other.target)).shape == (width,) else (product, None)


def _stack(node: fx.Node, name: str) -> dict[str, Any]:
    """Return the modules that a node lies in, with the layer of the weight as the innermost."""
    return {**(node.meta.get("nn_module_stack") or {}), f"L__self__model_{name}": (f"model.{name}", "Layer")}
