"""Leaving out blocks of a model: those that repeat in a container and that it runs without."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flyweight.task.change import Skipped
from flyweight.task.scores import call_model, evaluating

Inputs = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Shallower:
    """A model with fewer blocks.

    Args:
        model: a copy.
        left_out: names of the blocks that are gone, as they were called.
        skipped: containers that stay whole, and why.
    """

    model: nn.Module
    left_out: tuple[str, ...]
    skipped: tuple[Skipped, ...]


def leave_out_blocks(model: nn.Module, inputs: Inputs, depth: float) -> Shallower:
    """Return a copy of a model with a share `depth` of the blocks of each container, at least one.

    A block is a child of a container beside others of its class. One at a time is left out on a trial, and where the
    model runs without it and its outputs keep their shape, the one goes whose absence moves the outputs least, until
    few enough are left.

    Args:
        model: left as it is.
        inputs: a batch to try it on.
        depth: share of blocks that stay, in (0, 1].
    """
    left_out: list[str] = []
    skipped: list[Skipped] = []
    with evaluating(model), torch.no_grad():
        rows = len(next(iter(inputs.values())))
        wanted = model(**inputs)
        rows = len(wanted)
        wanted = call_model(model, inputs, rows)
    current = model
    for name, container in list(_containers(model)):
        names = [f"{name}.{number}".removeprefix(".") for number in range(len(container))]
        keep = max(1, round(depth * len(container)))
        while len(names) > keep:
            trials = [_trial(current, name, number, inputs, wanted) for number in range(len(names))]
            possible = [(far, number) for number, far in enumerate(trials) if far is not None]
            if not possible:
                skipped.append(Skipped(name or "the model", "it does not run without any one of its blocks", "distill"))
                break
            _, number = min(possible)
            current = without_block(current, name, number)
            left_out.append(names.pop(number))
    return Shallower(current if current is not model else copy_of(model), tuple(left_out), tuple(skipped))


def _containers(model: nn.Module) -> Iterator[tuple[str, nn.Sequential | nn.ModuleList]]:
    """Yield the outermost containers of two or more blocks of one class that have weights."""
    inside: list[str] = []
    for name, module in model.named_modules():
        if not isinstance(module, (nn.Sequential, nn.ModuleList)) or any(name.startswith(f"{o}.") for o in inside):
            continue
        blocks = list(module)
        alike = len(blocks) > 1 and len({type(block) for block in blocks}) == 1
        if alike and all(any(True for _ in block.parameters()) for block in blocks) and not _is_container(blocks[0]):
            inside.append(name)
            yield name, module


def _is_container(module: nn.Module) -> bool:
    """Stages of a network are containers of blocks, not blocks: each does what no other does."""
    return isinstance(module, (nn.Sequential, nn.ModuleList, nn.Embedding, nn.EmbeddingBag))


def _trial(model: nn.Module, name: str, number: int, inputs: Inputs, wanted: Tensor) -> float | None:
    """Return how far outputs move when a block is left out, mean squared; None where the model does not do without."""
    shorter = without_block(model, name, number)
    try:
        with evaluating(shorter), torch.no_grad():
            outputs = call_model(shorter, inputs, len(wanted))
    except Exception:  # whatever a user's forward() raises when a block is missing: it cannot do without
        return None
    if outputs.shape != wanted.shape or not bool(torch.isfinite(outputs).all()):
        return None
    return float((outputs - wanted).square().mean())


def without_block(model: nn.Module, name: str, number: int) -> nn.Module:
    """Return a copy of a model without one block of a container; the blocks after it move up."""
    copied = copy_of(model)
    container = copied.get_submodule(name)
    assert isinstance(container, (nn.Sequential, nn.ModuleList))
    del container[number]
    return copied


def copy_of(model: nn.Module) -> nn.Module:
    """Return a copy of a model that shares the memory of its embedding tables."""
    tables = [module.weight for module in model.modules() if isinstance(module, (nn.Embedding, nn.EmbeddingBag))]
    memo = {id(weight): nn.Parameter(weight.detach(), weight.requires_grad) for weight in tables}
    return copy.deepcopy(model, memo)
