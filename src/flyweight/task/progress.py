"""Progress of long work, wherever it happens: whoever drives the work says where it is shown."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from flyweight.task.estimate import Estimate


@dataclass(frozen=True)
class BestSoFar:
    """The best that a search has found until now.

    Args:
        words: its recipe, short.
        bytes, size_ratio: of the exported model on disk, and how many times smaller than the original's.
        latency_ms, speedup: median of one request, and how many times faster than the original; None where not timed.
        drop: paired drop of the metric on validation rows; positive is worse.
    """

    words: str
    bytes: int
    size_ratio: float
    latency_ms: float | None = None
    speedup: float | None = None
    drop: Estimate | None = None


@dataclass(frozen=True)
class SearchState:
    """Where a search stands.

    Args:
        elapsed: seconds since it began, earlier sittings left out.
        limit: seconds that it may take; None without a limit.
        done, cut, failed: trials that were measured, given up early, and that threw.
        running: what is tried now, in words.
        finished: the trial that ended last with its outcome, in words.
        best: the best so far; None before there is one.
        metric: what drops, by name ("auc").
    """

    elapsed: float
    limit: float | None = None
    done: int = 0
    cut: int = 0
    failed: int = 0
    running: str = ""
    finished: str = ""
    best: BestSoFar | None = None
    metric: str = ""


class Display(Protocol):
    """Shows one stage of work at a time, with the time left, and a search in which stages come and go."""

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

    def watch(self, state: SearchState | None) -> None:
        """Show where a search stands, until the next state; None once it is over."""
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


def publish(state: SearchState | None) -> None:
    """Show where a search stands; None once it is over, whatever ended it. Silent where nothing is shown.

    Between two states, stages show as what runs now.

    Example:
        >>> publish(SearchState(elapsed=12.0, limit=600.0, done=3, running="tables 700x, int8"))
        >>> publish(None)
    """
    display = _display.get()
    if display is not None:
        display.watch(state)


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
