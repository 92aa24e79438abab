"""Progress of long work, wherever it happens: whoever drives the work says where it is shown."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class Display(Protocol):
    """Shows one stage of work at a time, with the time left."""

    def begin(self, words: str, total: int | None, seconds: float | None) -> None:
        """Start a stage of `total` units, or one that takes about so many seconds, or one of unknown length."""
        ...

    def advance(self, units: int) -> None:
        """Say that so many units more are done."""
        ...

    def end(self) -> None:
        """Finish the stage."""
        ...

    def say(self, words: str) -> None:
        """Show a line that cannot wait for the result."""
        ...


class Stage:
    """One stage of work; call `advance` as it goes."""

    def __init__(self, display: Display | None) -> None:
        self._display = display

    def advance(self, units: int = 1) -> None:
        """Say that so many units more are done."""
        if self._display is not None:
            self._display.advance(units)


_display: ContextVar[Display | None] = ContextVar("flyweight_progress", default=None)


@contextmanager
def shown_on(display: Display | None) -> Iterator[None]:
    """Show all progress within the block on a display; None is silent."""
    token = _display.set(display)
    try:
        yield
    finally:
        _display.reset(token)


def teller() -> Callable[[str], None]:
    """Return how to tell the user something at once, also from within a stage; silent where nothing is shown."""
    display = _display.get()
    return (lambda words: None) if display is None else display.say


@contextmanager
def stage(words: str, total: int | None = None, *, seconds: float | None = None) -> Iterator[Stage]:
    """Announce a stage of work. Stages do not nest: an inner one is counted as part of the outer one.

    Args:
        words: what is being done.
        total: units that `advance` will be told of.
        seconds: for work that cannot be counted, about how long it takes, so that time left can be shown.

    Example:
        >>> with stage("Encoding tables", total=3) as work:
        ...     work.advance()
    """
    display = _display.get()
    if display is None:
        yield Stage(None)
        return
    display.begin(words, total, seconds)
    token = _display.set(None)
    try:
        yield Stage(display)
    finally:
        _display.reset(token)
        display.end()
