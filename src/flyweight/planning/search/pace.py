"""How long learning takes on this machine: reading the train split, and a few steps timed."""

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from flyweight.distillation.training import STEP_ROWS
from flyweight.distillation.working import working_copy
from flyweight.task.scores import call_model
from flyweight.task.task import Task

#: Seconds that steps are timed for, and how much longer they take with a teacher, an optimizer and checks.
SECONDS, TEACHING = 2.0, 1.6


def seconds_an_epoch(task: Task) -> float:
    """Return about how long learning takes for a pass over the train split."""
    working = working_copy(task.model, tables=False)
    started = time.monotonic()
    total = sum(len(target) for _, target, _ in task.batches("train"))
    reading = time.monotonic() - started
    rows, started = 0, time.monotonic()
    for inputs, count in _steps(task):
        outputs = call_model(working.model, inputs, count)
        if outputs.requires_grad:
            torch.autograd.backward(outputs.square().mean())
        rows += count
        if time.monotonic() - started > SECONDS:
            break
    return reading + TEACHING * total / rows * (time.monotonic() - started)


def _steps(task: Task) -> Iterator[tuple[dict[str, Tensor], int]]:
    """Yield what each step learns from: pieces of batches, where they can be cut by row."""
    for inputs, target, _ in task.batches("train"):
        rows = len(target)
        if any(len(value) != rows for value in inputs.values()):
            yield inputs, rows
            continue
        for first in range(0, rows, STEP_ROWS):
            piece = {name: value[first : first + STEP_ROWS] for name, value in inputs.items()}
            yield piece, min(STEP_ROWS, rows - first)
