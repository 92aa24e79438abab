"""Who is to blame for a failed export: the operator and the module, dug out of the exporter's exception."""

import linecache
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor, fx, nn


@dataclass(frozen=True)
class Blame:
    """Where an export failed.

    Args:
        operator: such as "aten.linalg_eig.default", with the line of Python that called it where known.
        module: the name in `model.named_modules()` and the class, such as "tower.gate (Gate)".
        reason: the first line of the lowest exception.
    """

    operator: str
    module: str
    reason: str


def find_blame(error: BaseException, model: nn.Module) -> Blame:
    """Return the operator, the module and the reason of a failed capture or translation of `model`."""
    lowest = _chain(error)[-1]
    reason = next((line.strip() for line in str(lowest).splitlines() if line.strip()), type(lowest).__name__)
    if isinstance(error, torch.onnx.OnnxExporterError):
        nodes = [node for frame in _frames(error) if isinstance(node := frame.f_locals.get("node"), fx.Node)]
        if nodes:
            return Blame(str(nodes[0].target), _module_of_node(nodes[0], model), reason)
    module, line = _module_and_line(error, model)
    operator = _last_operator(error)
    if operator and line:
        operator = f"{operator} in `{line}`"
    return Blame(operator or f"`{line}`", module, reason)


def find_fixed_rows(error: BaseException, model: nn.Module, inputs: dict[str, Tensor], rows: int) -> Blame | None:
    """Return the module that insists on `rows` rows, if that is why the capture failed.

    The model is run on twice the rows: the innermost module that fails, or first gives back something else than twice
    the rows, is the one.
    """
    if "Constraints violated (rows)" not in str(error):
        return None
    names = {id(module): name for name, module in model.named_modules()}
    found: list[str] = []

    def look(module: nn.Module, given: Any, output: Any) -> None:
        grew = any(isinstance(value, Tensor) and value.ndim and len(value) == 2 * rows for value in given)
        if grew and isinstance(output, Tensor) and (output.ndim == 0 or len(output) != 2 * rows):
            found.append(_title(names[id(module)], module))

    hooks = [module.register_forward_hook(look) for module in model.modules()]
    try:
        model(**{name: torch.cat([value, value]) if len(value) == rows else value for name, value in inputs.items()})
    except (RuntimeError, ValueError, IndexError, TypeError) as failure:
        found.append(_module_and_line(failure, model)[0])
    finally:
        for hook in hooks:
            hook.remove()
    module = found[0] if found else type(model).__name__
    return Blame("a shape with the number of rows written into it", module, f"it works for {rows} rows only.")


def _title(name: str, module: nn.Module) -> str:
    return f"{name} ({type(module).__name__})" if name else type(module).__name__


def _module_of_node(node: fx.Node, model: nn.Module) -> str:
    """The innermost module that the node was captured in; the exporter was given the model as attribute `model`."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    name = str(stack[-1][0]).split("@")[0].removeprefix("model").removeprefix(".") if stack else ""
    named = dict(model.named_modules())
    return _title(name, named[name]) if name in named else type(model).__name__


def _module_and_line(error: BaseException, model: nn.Module) -> tuple[str, str]:
    """The innermost module whose forward was running, and the line it stood at."""
    names = {id(module): name for name, module in model.named_modules()}
    plumbing = nn.Module.__call__.__code__.co_filename
    module, line = type(model).__name__, "forward"
    for frame in _frames(error):
        owner = frame.f_locals.get(frame.f_code.co_varnames[0]) if frame.f_code.co_argcount else None  # mostly `self`
        if isinstance(owner, nn.Module) and id(owner) in names and frame.f_code.co_filename != plumbing:
            module = _title(names[id(owner)], owner)
            line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip() or line
    return module, line


def _last_operator(error: BaseException) -> str:
    """The operator that was being called, or else the last that was captured."""
    called = [func for frame in _frames(error) if isinstance(func := frame.f_locals.get("func"), torch._ops.OpOverload)]
    if called:
        return str(called[-1])
    captured = re.findall(r"torch\.ops\.(aten\.\w+\.\w+)", str(getattr(_chain(error)[-1], "partial_fx_graph", "")))
    return captured[-1] if captured else ""


def _chain(error: BaseException) -> list[BaseException]:
    """The exception, what caused it, what caused that."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    return chain


def _frames(error: BaseException) -> Iterator[FrameType]:
    """The frames that the exception and its causes passed, from the outermost in."""
    for one in _chain(error):
        trace = one.__traceback__
        while trace is not None:
            yield trace.tb_frame
            trace = trace.tb_next
