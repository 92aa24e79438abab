"""How the task's loss feels the weights of a traced model: one backward pass for each piece of calibration rows.

The model is in evaluation mode throughout: batch norm is frozen, dropout off. Embedding tables are not written to and
get no gradients of their own; what is looked up in them stands for their rows.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.errors import InputError
from flyweight.graph.traced import TracedModel, tensor_of
from flyweight.pruning.calibration import Piece
from flyweight.task.scores import call_model
from flyweight.task.task import Task

TABLES = (nn.Embedding, nn.EmbeddingBag)


@dataclass(frozen=True, eq=False)
class Felt:
    """Values and gradients of one piece, by the names of tensors.

    Args:
        weights: name -> (value, gradient), both of the weight's shape.
        lookups: name of a table's weight -> (value, gradient) of what was looked up, (lookups, dim).
    """

    weights: dict[str, tuple[Tensor, Tensor]]
    lookups: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


def feel_weights(
    task: Task, traced: TracedModel, names: Sequence[str], pieces: Iterable[Piece], *, needed_by: str
) -> Iterator[Felt]:
    """Yield the values and gradients of the named tensors, piece after piece.

    Args:
        traced: left as it is.
        names: parameters, and weights of tables.
        needed_by: the saliency that asks, for the error's words.

    Raises:
        InputError: the task's loss cannot be computed, is not finite or has no gradient.
    """
    model = _copied(traced)
    tables = _tables(model, names)
    weights = {name: tensor_of(model.body, name) for name in names if name not in tables}
    for parameter in weights.values():
        parameter.requires_grad_(True)
    with torch.enable_grad(), _watching(tables) as lookups:
        for inputs, target in pieces:
            for seen in lookups.values():
                seen.clear()
            loss = checked_loss(task, call_model(model, inputs, len(target)), target, needed_by)
            leaves = [*weights.values(), *(one for seen in lookups.values() for one in seen)]
            gradients = iter(_gradients(loss, leaves))
            felt = {name: (value.detach(), next(gradients)) for name, value in weights.items()}
            yield Felt(felt, {name: _joined(seen, gradients) for name, seen in lookups.items() if seen})


def _copied(traced: TracedModel) -> TracedModel:
    """Return a copy that shares tables, so that flags set on it are its own."""
    shared = {
        id(tensor): nn.Parameter(tensor.detach(), requires_grad=False)
        for module in traced.modules()
        if isinstance(module, TABLES)
        for tensor in module.parameters()
    }
    return copy.deepcopy(traced, shared).eval()


def _tables(model: TracedModel, names: Sequence[str]) -> dict[str, nn.Module]:
    """Return the table modules that hold tensors of these names."""
    owners = {name: model.body.get_submodule(name.rpartition(".")[0]) for name in names}
    return {name: owner for name, owner in owners.items() if isinstance(owner, TABLES)}


@contextmanager
def _watching(tables: Mapping[str, nn.Module]) -> Iterator[dict[str, list[Tensor]]]:
    """Collect what is looked up, as leaves that want gradients."""
    seen: dict[str, list[Tensor]] = {name: [] for name in tables}
    hooks = []
    for name, module in tables.items():

        def keep(_: nn.Module, __: Any, output: Tensor, store: list[Tensor] = seen[name]) -> Tensor:
            leaf = output.detach().requires_grad_(True)
            store.append(leaf)
            return leaf

        hooks.append(module.register_forward_hook(keep))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def checked_loss(task: Task, outputs: Tensor, target: Tensor, needed_by: str) -> Tensor:
    """Return the task's mean loss, which a gradient can be taken of.

    Raises:
        InputError: it cannot be computed, is not finite or has no gradient.
    """
    try:
        loss = task.row_loss(outputs, target).mean()
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(_words(needed_by, f"it cannot be computed ({first})")) from error
    if not bool(torch.isfinite(loss)):
        raise InputError(_words(needed_by, f"it is {float(loss.detach())} on {len(target)} calibration rows"))
    if not loss.requires_grad:
        raise InputError(_words(needed_by, "it has none: the loss or the model is cut off from its weights"))
    return loss


def _gradients(loss: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    return [torch.zeros_like(leaf) if one is None else one for leaf, one in zip(leaves, found, strict=True)]


def _joined(seen: list[Tensor], gradients: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
    pairs = [(one.detach().reshape(-1, one.shape[-1]), next(gradients).reshape(-1, one.shape[-1])) for one in seen]
    return torch.cat([value for value, _ in pairs]), torch.cat([gradient for _, gradient in pairs])


def _words(needed_by: str, seen: str) -> str:
    return (
        f"Saliency {needed_by!r} needs the gradient of the task's loss by its targets, and {seen}. Give targets and a "
        "Task(loss=...) that fit the model, or use saliency='magnitude' or 'activation', which need no labels."
    )
