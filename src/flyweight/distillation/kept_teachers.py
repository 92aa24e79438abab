"""Teachers that outlive one training: where many students learn from one, it is asked once for each batch in all."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import nn

from flyweight.distillation.teacher import Teacher

_kept: ContextVar[dict[int, tuple[nn.Module, Teacher]] | None] = ContextVar("flyweight_teachers", default=None)


@contextmanager
def keeping_teachers() -> Iterator[None]:
    """Keep what teachers say for all trainings within the block.

    Example:
        >>> with keeping_teachers():
        ...     pass  # every recover() of one teacher's students
    """
    teachers: dict[int, tuple[nn.Module, Teacher]] = {}
    token = _kept.set(teachers)
    try:
        yield
    finally:
        _kept.reset(token)
        for _, teacher in teachers.values():
            teacher.close()


@contextmanager
def asking(model: nn.Module, place: Callable[[nn.Module], nn.Module]) -> Iterator[Teacher]:
    """Give the teacher of a model: one that is kept, or one for this training alone.

    Args:
        place: brings the model to where it is asked.
    """
    teachers = _kept.get()
    if teachers is None:
        alone = Teacher(place(model))
        try:
            yield alone
        finally:
            alone.close()
        return
    if id(model) not in teachers:  # the model is kept beside its teacher, so that its identity stays its own
        teachers[id(model)] = model, Teacher(place(model))
    yield teachers[id(model)][1]
