"""Whether a smaller model does what it should: run on two numbers of rows, and compared with units set to zero."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from flyweight.errors import InputError
from flyweight.graph.coupled.axes import at_rows, size_of
from flyweight.graph.coupled.grouping import Grouping
from flyweight.graph.trace import trace
from flyweight.graph.traced import TracedModel, tensor_of

#: Rows that a smaller model is run on.
ROWS = (2, 3)
#: How far it may lie from the one with units at zero, relative to the largest output.
TOLERANCE = 1e-3


def fault(
    traced: TracedModel,
    smaller: TracedModel,
    grouping: Grouping,
    stays: npt.NDArray[np.bool_],
    batches: list[dict[str, Tensor]],
) -> str:
    """Return why a smaller model is wrong on some batches, or "" if it is not.

    Where no norm takes a mean over what was cut, its outputs must be those of the model with the cut units' weights at
    zero, theirs and those that read them.
    """
    exact = not any((~stays[ids]).any() for ids in grouping.analysis.flow.labels.normed)
    reference = zeroed(traced, grouping, stays) if exact else traced
    for inputs in batches:
        wanted = _run(reference, inputs)
        try:
            seen = _run(smaller, inputs)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            return f"the smaller model fails: {str(error).splitlines()[0]}"
        if seen.shape != wanted.shape:
            return f"the smaller model returns {tuple(seen.shape)} instead of {tuple(wanted.shape)}"
        scale = float(wanted.abs().nan_to_num(0.0).max()) if wanted.numel() else 0.0
        if exact and not torch.allclose(seen, wanted, rtol=0.0, atol=TOLERANCE * scale + 1e-6, equal_nan=True):
            far = float((seen - wanted).abs().max())
            return f"its outputs move by {far:.3g} against the model with those units at zero"
    return ""


def zeroed(traced: TracedModel, grouping: Grouping, stays: npt.NDArray[np.bool_]) -> TracedModel:
    """Return the model with the weights of units that do not stay set to zero; it is as large as before."""
    found = trace(traced, {})
    for axis in grouping.analysis.flow.labels.axes:
        gone = np.flatnonzero(~stays[axis.ids])
        if axis.dim < 0 or not len(gone):
            continue
        tensor = tensor_of(found.body, axis.tensor)
        if tensor.is_floating_point():
            filled = tensor.detach().index_fill(axis.dim, torch.from_numpy(gone).to(tensor.device), 0.0)
            replace(traced, found, {axis.tensor: filled})
    return found


def replace(traced: TracedModel, found: TracedModel, tensors: dict[str, Tensor]) -> None:
    """Put new tensors in a copy of a traced model, under every name that the old ones had."""
    names: dict[int, list[str]] = {}
    for name, tensor in _named(traced.body):
        names.setdefault(id(tensor), []).append(name)
    for name, tensor in tensors.items():
        old = tensor_of(traced.body, name)
        new = nn.Parameter(tensor, old.requires_grad) if isinstance(old, nn.Parameter) else tensor
        for alias in names[id(old)]:
            path, _, last = alias.rpartition(".")
            setattr(found.body.get_submodule(path), last, new)


def _named(body: nn.Module) -> list[tuple[str, Tensor]]:
    parameters = list(body.named_parameters(remove_duplicate=False))
    return [*parameters, *body.named_buffers(remove_duplicate=False)]


def samples(traced: TracedModel) -> list[dict[str, Tensor]]:
    """Return made-up inputs of two and of three rows: normal numbers; ids 0 and 1, or 0 alone where 1 will not do.

    Raises:
        InputError: the model runs on neither.
    """
    error = ""
    for most in (2, 1):
        batches = [_sample(traced, rows, most) for rows in ROWS]
        try:
            for inputs in batches:
                _run(traced, inputs)
        except (RuntimeError, IndexError, ValueError) as failure:
            error = str(failure).splitlines()[0]
        else:
            return batches
    raise InputError(f"The model fails on made-up inputs ({error}); give shrink a batch of real ones as `inputs`.")


def _sample(traced: TracedModel, rows: int, most: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    device = next((parameter.device for parameter in traced.parameters()), None)
    found: dict[str, Tensor] = {}
    for name, node in zip(traced.names, traced.body.graph.find_nodes(op="placeholder"), strict=True):
        value = node.meta["val"]
        shape = [at_rows(size_of(length), rows) for length in value.shape]
        drawn = torch.randn(shape, generator=generator)
        if not value.is_floating_point():
            drawn = torch.randint(0, most, shape, generator=generator)
        found[name] = drawn.to(device, value.dtype)
    return found


def _run(traced: TracedModel, inputs: dict[str, Tensor]) -> Tensor:
    training = traced.training
    with torch.no_grad():
        traced.eval()
        try:
            output: Tensor = traced(**inputs)
            return output.double()
        finally:
            traced.train(training)
