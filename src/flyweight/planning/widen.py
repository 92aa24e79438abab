"""Weights of 16 bits widened to 32: few operators of the CPU engines take halves, and none gives PyTorch's scores."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from flyweight.tables.mapped import looked_up_wide, wide_lookups
from flyweight.tables.replace import copy_model
from flyweight.task.change import Change
from flyweight.task.task import Task

STEP = "widen_weights"
HALVES = (torch.float16, torch.bfloat16)


def widen_weights(task: Task) -> tuple[Task, tuple[Change, ...]]:
    """Return a task whose weights and inputs of 16 bits are float32, and the change; the same task where none are.

    A table that lies in a mapped file stays there as it is: rows are widened when they are looked up.

    Raises:
        InputError: the widened model does not run, because its code asks for halves.
    """
    halves = [weight for weight in [*task.model.parameters(), *task.model.buffers()] if weight.dtype in HALVES]
    if not halves:
        return task, ()
    mapped = _mapped_tables(task.model)
    kept = {id(module.weight): module.weight for module in mapped.values()}
    copied = {id(weight): _widened(weight) for weight in halves if id(weight) not in kept}
    model = copy_model(task.model, copied | kept)
    for path in mapped:
        model.set_submodule(path, wide_lookups(cast(nn.Embedding, model.get_submodule(path))))
    train, validation, test = _Widened(task.train), _Widened(task.validation), _Widened(task.test)
    kinds = ", ".join(sorted({str(weight.dtype).removeprefix("torch.") for weight in halves}))
    count = sum(weight.numel() for weight in halves)
    done: dict[str, Any] = {"what": "weights", "from": kinds, "to": "float32", "weights": count}
    if mapped:
        done["looked_up"] = sorted(mapped)
    wide = replace(task, model=model, train=train, validation=validation, test=test)
    return wide, (Change(STEP, model, done=(done,)),)


def _mapped_tables(model: nn.Module) -> dict[str, nn.Embedding]:
    """Return, by path, the embeddings whose 16-bit tables lie in mapped files and belong to such embeddings alone."""
    modules = [(path, module) for path, module in model.named_modules(remove_duplicate=False) if path]
    found = {path: cast(nn.Embedding, module) for path, module in modules if looked_up_wide(module)}
    inside = {id(module) for module in found.values()}
    others = {id(one) for _, module in modules if id(module) not in inside for one in module.parameters(recurse=False)}
    return {path: module for path, module in found.items() if id(module.weight) not in others}


class _Widened:
    """A split whose inputs of 16 bits are read as float32; all else about it is the user's own."""

    def __init__(self, data: Iterable[Any]) -> None:
        self._data = data

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_data"], name)

    def __iter__(self) -> Iterator[Any]:
        for named, target in self._data:
            yield {name: _float32(torch.as_tensor(value)) for name, value in named.items()}, target


def _widened(weight: Tensor) -> Tensor:
    wide = weight.detach().float()
    return nn.Parameter(wide, requires_grad=weight.requires_grad) if isinstance(weight, nn.Parameter) else wide


def _float32(values: Tensor) -> Tensor:
    return values.float() if values.dtype in HALVES else values
