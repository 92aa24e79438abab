"""Modules that round to integers, as the operators they call: rules look at operators.

A quantised model is a traced one in which a module rounds each weight and each value, so that its scale can be learned.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode

import flyweight.graph.quantize_ops  # noqa: F401 - defines the operators below
from flyweight.graph.traced import tensor_of
from flyweight.rewrite.emit import describe, shape_of

_ROUNDING = frozenset(
    getattr(torch.ops.flyweight, name).default
    for name in ("quantize_dequantize", "quantize_dequantize_blocks", "stored")
)


def write_out_rounding(body: fx.GraphModule) -> int:
    """Replace calls of modules that do no more than one operator that rounds, in place; return how many."""
    written = 0
    for node in list(body.graph.find_nodes(op="call_module")):
        name = str(node.target)
        module, shape = body.get_submodule(name), shape_of(node)
        if shape is None or len(node.args) != 1 or node.kwargs or any(True for _ in module.children()):
            continue
        call = _only_call(module, [size if isinstance(size, int) else 2 for size in shape])
        if call is not None:
            _write(body, node, name, *call)
            written += 1
    return written


def _only_call(module: nn.Module, shape: list[int]) -> tuple[Callable[..., Any], list[Any]] | None:
    """Return the rounding operator that a module calls and its arguments, tensors by name and "" for what it is given.

    None where it calls another, or several.
    """
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) or not any(True for _ in module.parameters()):
        return None
    value = torch.zeros(shape)
    try:
        with torch.no_grad(), _Calls() as seen:
            module(value)
    except (RuntimeError, TypeError, ValueError, IndexError):
        return None  # it takes something else than float32 numbers of this shape
    if len(seen.calls) != 1 or seen.calls[0][0] not in _ROUNDING:
        return None
    target, args = seen.calls[0]
    own = {tensor.data_ptr(): name for name, tensor in [*module.named_parameters(), *module.named_buffers()]}
    own[value.data_ptr()] = ""
    if any(isinstance(one, Tensor) and one.data_ptr() not in own for one in args):
        return None
    return target, [_Named(own[one.data_ptr()]) if isinstance(one, Tensor) else one for one in args]


class _Named(str):
    """A tensor of a module by name."""


def _write(body: fx.GraphModule, node: fx.Node, name: str, target: Callable[..., Any], args: list[Any]) -> None:
    given: list[Any] = []
    with body.graph.inserting_before(node):
        for one in args:
            if isinstance(one, _Named) and one:
                read = body.graph.get_attr(f"{name}.{one}")
                read.meta["val"] = torch.empty_like(tensor_of(body, str(read.target)), device="meta")
                given.append(read)
            else:
                given.append(node.args[0] if isinstance(one, _Named) else one)
        made = body.graph.call_function(target, tuple(given))
    describe(body, made)
    node.replace_all_uses_with(made)
    body.graph.erase_node(node)


class _Calls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it, what is called is noted."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Callable[..., Any], list[Any]]] = []

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Note a call, and make it; arguments by name are put in their places."""
        schema = func._schema.arguments  # type: ignore[attr-defined]
        named = {**{one.name: value for one, value in zip(schema, args, strict=False)}, **(kwargs or {})}
        self.calls.append((func, [named.get(one.name, one.default_value) for one in schema]))
        return func(*args, **(kwargs or {}))
