"""A model's outputs over a whole split, beside targets and groups, as NumPy arrays."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flyweight.errors import InputError


@dataclass(frozen=True)
class Scores:
    """What a model said about a split.

    Args:
        outputs: (rows,) or (rows, columns), float64.
        targets: (rows,) or the shape of the outputs.
        groups: (rows,) whole numbers, or None when the task names no group.
    """

    outputs: NDArray[np.float64]
    targets: NDArray[Any]
    groups: NDArray[np.int64] | None


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Hold a model in evaluation mode, and put every module's mode back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes:
            module.training = training
        for module, _ in modes:
            follow = getattr(module, "follow_mode", None)
            if follow is not None:  # a traced graph holds modes in its operators too
                follow()


def call_model(model: nn.Module, inputs: dict[str, Tensor], rows: int) -> Tensor:
    """Return `model(**inputs)` as (rows,) or (rows, columns).

    Raises:
        InputError: the model refuses the inputs or returns something else than one tensor with a row for each target.
    """
    try:
        outputs = model(**inputs)
    except TypeError as error:
        raise InputError(
            f"The model does not take these inputs ({', '.join(inputs)}): {error}. "
            "Task(inputs=...) must use the names of the arguments of the model's forward()."
        ) from error
    except (RuntimeError, IndexError, ValueError) as error:
        shapes = ", ".join(f"{name} {str(value.dtype)[6:]}{tuple(value.shape)}" for name, value in inputs.items())
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"The model failed on a batch of {shapes}: {first}") from error
    if not isinstance(outputs, Tensor):
        raise InputError(
            f"The model returned {type(outputs).__name__}; it must return one tensor. Wrap it in a module that does."
        )
    if outputs.ndim == 0 or len(outputs) != rows:
        raise InputError(
            f"The model returned shape {tuple(outputs.shape)} for {rows} targets; it must return one row a target."
        )
    return outputs.squeeze(1) if outputs.ndim == 2 and outputs.shape[1] == 1 else outputs


def cuts_by_row(model: nn.Module, inputs: dict[str, Tensor], rows: int) -> bool:
    """Return whether a batch may be cut: its later rows alone get the outputs that they get in the whole batch.

    Flat bags with offsets may not, even where there happen to be as many ids as rows.
    """
    if any(len(value) != rows for value in inputs.values()):
        return False
    half = rows // 2
    try:
        with evaluating(model), torch.no_grad():
            whole = call_model(model, inputs, rows)
            part = call_model(model, {name: value[half:] for name, value in inputs.items()}, rows - half)
    except InputError:
        return False
    return torch.allclose(part, whole[half:], rtol=1e-3, atol=1e-4)


def as_arrays(outputs: list[Tensor], targets: list[Tensor], groups: list[Tensor]) -> Scores:
    """Join per-batch tensors into `Scores`; a target of shape (rows, 1) becomes (rows,)."""
    target = torch.cat(targets).numpy()
    if target.ndim == 2 and target.shape[1] == 1:
        target = target[:, 0]
    return Scores(
        outputs=torch.cat(outputs).double().numpy(),
        targets=target,
        groups=torch.cat(groups).long().numpy() if groups else None,
    )
