"""Who trains what is trained in shards: this process, or others that whoever drives the work has named."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from flyweight.distillation.training import Training
from flyweight.task.task import Task


class Together(Protocol):
    """Trains a model with other processes, as `recover.train` does here; the weights are the same."""

    def __call__(
        self,
        task: Task,
        model: nn.Module,
        training: Training,
        *,
        teacher: nn.Module | None,
        after_step: Any,
        checkpoint: Path | None,
    ) -> Any:
        """Return what `recover.train` would."""
        ...


_together: ContextVar[Together | None] = ContextVar("flyweight_together", default=None)


@contextmanager
def training_together(how: Together) -> Iterator[None]:
    """Have trainings whose settings name shards made by others within the block."""
    token = _together.set(how)
    try:
        yield
    finally:
        _together.reset(token)


def others_for(training: Training) -> Together | None:
    """Return who makes a training; None for this process."""
    return None if training.shards is None else _together.get()
