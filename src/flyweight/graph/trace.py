"""From a module to a graph of its operators: the one form in which models are pruned and quantised."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from flyweight.errors import ExportError
from flyweight.graph.capture import capture
from flyweight.graph.lifted_weights import restore_lifted
from flyweight.graph.quiet import quietly
from flyweight.graph.tensors import hold
from flyweight.graph.traced import TracedModel, clean, tensor_of
from flyweight.task.scores import call_model, evaluating

#: How far a trace may lie from the model it was made of, relative to the largest output.
TOLERANCE = 1e-4


def trace(model: nn.Module, inputs: Mapping[str, Tensor]) -> TracedModel:
    """Return a model as a graph of operators that gives the same outputs, for any number of rows.

    The graph has weights of its own: changing it leaves `model` as it was. Embedding tables are the exception: they
    stay modules (`nn.Embedding`, `nn.EmbeddingBag`, and any whose class says `traced_whole = True`), share their
    memory with the model, and must be replaced, never written to.

    Args:
        model: traced in evaluation mode; a `TracedModel` is copied.
        inputs: a batch of two rows or more, by the names of the model's arguments.

    Raises:
        ExportError: a branch or a shape depends on values or on the number of rows (names the line and the module), or
            the trace gives other outputs than the model.

    Example:
        >>> sorted(name for name, _ in trace(nn.Linear(3, 1), {"input": torch.rand(4, 3)}).body.named_parameters())
        ['bias', 'weight']
    """
    if isinstance(model, TracedModel):
        return _copied(model)
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        with evaluating(model), torch.no_grad(), quietly():
            captured = capture(model, inputs)
            body = captured.program.module(check_guards=False)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    assert isinstance(body, fx.GraphModule)
    _name_inputs(body, tuple(inputs))
    body = _under_own_names(body)
    _drop_idle_casts(body)
    restore_lifted(body, model)
    first: dict[int, str] = {}
    for name, module in _whole(model):
        _restore(body, name, first.setdefault(id(module), name), module)
    clean(body)
    traced = TracedModel(_without_sharing(body), tuple(inputs))
    _check(model, traced, dict(zip(inputs, captured.values, strict=True)), captured.rows)
    return traced


def _name_inputs(body: fx.GraphModule, names: tuple[str, ...]) -> None:
    """Give the graph plain code: its inputs by place, its output as it is."""
    for node, name in zip(body.graph.find_nodes(op="placeholder"), names, strict=True):
        node.target = name
    body.graph.set_codegen(fx.graph.CodeGen())
    for node in list(body.graph.nodes):
        if node.op == "call_module" and node.target == "_guards_fn":
            body.graph.erase_node(node)
        elif node.target is torch.ops.aten._assert_tensor_metadata.default:
            body.graph.erase_node(node)  # a claim about a dtype: keeps dead operators alive, forbids other precisions
        if node.op == "output":
            (outputs,) = node.args
            node.args = (outputs[0] if isinstance(outputs, (tuple, list)) else outputs,)


def _drop_idle_casts(body: fx.GraphModule) -> None:
    """Drop casts to the type that a tensor has already; what else reads the tensor would seem to read their module."""
    for node in body.graph.find_nodes(op="call_function", target=torch.ops.aten.to.dtype):
        source = node.args[0]
        value = source.meta.get("val") if isinstance(source, fx.Node) else None
        if len(node.args) == 2 and not node.kwargs and value is not None and value.dtype == node.meta["val"].dtype:
            node.replace_all_uses_with(source)
            body.graph.erase_node(node)


def _under_own_names(body: fx.GraphModule) -> fx.GraphModule:
    """Take away the wrapper's prefix "model." from the names of tensors."""
    holder = nn.Module()
    for node in body.graph.find_nodes(op="get_attr"):
        tensor = tensor_of(body, str(node.target))
        node.target = str(node.target).removeprefix("model.")
        hold(holder, node.target, tensor)
    # The exporter's own tracer cannot be made again without the model; pickled, a graph takes the plain one.
    body.graph._tracer_cls = None
    return fx.GraphModule(holder, body.graph)


def _whole(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the modules that stay modules, outermost first."""
    found: list[tuple[str, nn.Module]] = []
    for path, module in model.named_modules(remove_duplicate=False):
        table = isinstance(module, (nn.Embedding, nn.EmbeddingBag)) or getattr(type(module), "traced_whole", False)
        if table and not any(path.startswith(f"{outer}.") for outer, _ in found):
            found.append((path, module))
    return found


def _restore(body: fx.GraphModule, name: str, target: str, module: nn.Module) -> None:
    """Replace the operators that a module was traced to by calls of it as `target`, where it can be told how."""
    calls: dict[str, list[fx.Node]] = {}
    for node in body.graph.nodes:
        key = _call_of(node, name)
        if key is not None and node.op != "get_attr":
            calls.setdefault(key, []).append(node)
    for nodes in calls.values():
        inside = set(nodes)
        given = list(dict.fromkeys(one for node in nodes for one in node.all_input_nodes if one not in inside))
        given = [node for node in given if node.op != "get_attr"]
        results = [node for node in nodes if any(user not in inside for user in node.users)]
        tensors = [node for node in given if isinstance(node.meta.get("val"), Tensor)]
        if len(results) != 1 or not tensors or len(tensors) > 2:
            continue
        _install(body, target, module)
        with body.graph.inserting_before(results[0]):
            call = body.graph.call_module(target, tuple(tensors))
        call.meta = dict(results[0].meta)
        results[0].replace_all_uses_with(call)
    body.graph.eliminate_dead_code()


def _call_of(node: fx.Node, name: str) -> str | None:
    """Return which call of a module a node belongs to, or None if to none."""
    for key, entry in (node.meta.get("nn_module_stack") or {}).items():
        path = str(entry[0]).removeprefix("model").removeprefix(".")
        if path.split("@")[0] == name:
            return f"{key} {path}"
    return None


def _install(body: fx.GraphModule, name: str, module: nn.Module) -> None:
    """Put a copy of a module, with the same tensors, in its place."""
    if type(body.get_submodule(name)) is type(module):
        return
    shared: dict[int, Any] = {id(tensor): tensor for tensor in [*module.parameters(), *module.buffers()]}
    body.set_submodule(name, copy.deepcopy(module, shared))


def _tables(body: fx.GraphModule) -> list[Tensor]:
    called = [body.get_submodule(str(node.target)) for node in body.graph.nodes if node.op == "call_module"]
    return [
        tensor
        for module in called
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) or getattr(type(module), "traced_whole", False)
        for tensor in [*module.parameters(), *module.buffers()]
    ]


def _without_sharing(body: fx.GraphModule) -> fx.GraphModule:
    """Return the graph with copies of all tensors but the tables'."""
    return copy.deepcopy(body, {id(tensor): tensor for tensor in _tables(body)})


def _copied(model: TracedModel) -> TracedModel:
    return copy.deepcopy(model, {id(tensor): tensor for tensor in _tables(model.body)})


def _check(model: nn.Module, traced: TracedModel, inputs: dict[str, Tensor], rows: int) -> None:
    with evaluating(model), evaluating(traced), torch.no_grad():
        wanted, seen = call_model(model, inputs, rows).double(), call_model(traced, inputs, rows).double()
    scale = float(wanted.abs().max()) or 1.0
    far = float((wanted - seen).abs().max()) / scale if wanted.shape == seen.shape else float("inf")
    if not far <= TOLERANCE:
        raise ExportError(
            f"The traced model's outputs lie {far:.2g} of the largest output away from the model's. A forward() that "
            "draws random numbers or keeps state between calls cannot be traced; take that out of evaluation."
        )

