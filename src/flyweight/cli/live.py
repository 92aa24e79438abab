"""A search while it runs: a panel that stays in its place, or plain lines where there is no terminal."""

import time

from rich.console import Console, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress import Progress
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flyweight.cli.stage_bar import move, stage_bar
from flyweight.report.words import (
    bytes_in_words,
    metric_in_words,
    milliseconds_in_words,
    ratio_in_words,
    seconds_in_words,
    signed,
)
from flyweight.task.progress import BestSoFar, SearchState

#: Columns that the panel takes at most, and those it leaves free: a terminal writes ^C after the panel, and if that
#: began another line, the panel could not be taken down whole.
WIDEST, FREE = 96, 4


class SearchPanel:
    """Shows a search in place: time left, trials, the best so far, what runs now. Stages are part of the last."""

    def __init__(self, console: Console, state: SearchState) -> None:
        self.state = state
        self._console, self._seen = console, time.monotonic()
        self._stage: Progress | None = None
        self._live = Live(console=console, transient=True, get_renderable=self._render)
        self._live.start()

    def show(self, state: SearchState) -> None:
        """Show a newer state."""
        self.state, self._seen = state, time.monotonic()

    def begin(self, words: str, total: int | None, seconds: float | None) -> None:
        """Show a stage as what runs now."""
        self._stage = stage_bar(self._console, words, total, seconds)

    def advance(self, units: int) -> None:
        """Move the stage's bar."""
        if self._stage is not None:
            move(self._stage, units)

    def end(self) -> None:
        """Take the stage's bar away; no line of it stays."""
        self._stage = None

    def close(self) -> None:
        """Take the panel down; the cursor of a terminal is hidden as long as it stands."""
        self._live.stop()

    def _render(self) -> RenderableType:
        state, stage = self.state, self._stage
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True, width=5)
        grid.add_column(ratio=1)
        grid.add_row("time", _time(state, state.elapsed + time.monotonic() - self._seen))
        grid.add_row("tried", _line(trials_in_words(state)))
        grid.add_row("best", _line(state.best.words, "bold") if state.best else "nothing yet")
        for line in _numbers(state.best, state.metric) if state.best else ("", ""):
            grid.add_row("", _line(line))
        bar = "" if stage is None else stage.get_renderable()
        now = (_line(state.running), bar) if state.running else (bar, "")
        grid.add_row("now", now[0])
        grid.add_row("", now[1])
        width = min(self._console.width - FREE, WIDEST)
        return Panel(grid, title="Searching", title_align="left", border_style="dim", width=width)


class SearchLines:
    """Tells a search line by line: each trial that was measured, and each time that the best changes."""

    def __init__(self, console: Console, state: SearchState) -> None:
        self.state = SearchState(elapsed=0.0)
        self._console = console
        self.show(state)

    def show(self, state: SearchState) -> None:
        """Print what is new; trials that were cut or failed are counted with the next one that was measured."""
        if state.done > self.state.done:
            self._print(f"{seconds_in_words(state.elapsed)}: {trials_in_words(state)}", state.finished)
        if state.best is not None and state.best != self.state.best:
            self._print(f"best so far: {state.best.words}", *_numbers(state.best, state.metric))
        self.state = state

    def begin(self, words: str, total: int | None, seconds: float | None) -> None:
        """Leave a stage out."""

    def advance(self, units: int) -> None:
        """Leave a stage's units out."""

    def end(self) -> None:
        """Leave a stage's end out."""

    def close(self) -> None:
        """Take nothing down: lines stay."""

    def _print(self, *parts: str) -> None:
        self._console.print("; ".join(part for part in parts if part), markup=False)


def trials_in_words(state: SearchState) -> str:
    """Return how many trials ended how.

    Example:
        >>> trials_in_words(SearchState(elapsed=60.0, done=12, cut=3))
        '12 measured, 3 cut'
    """
    other = [f"{count:,} {word}" for count, word in ((state.cut, "cut"), (state.failed, "failed")) if count]
    return ", ".join([f"{state.done:,} measured", *other])


def _line(words: str, style: str = "") -> Text:
    """Return words as a line that is cut where the panel ends, so that the panel keeps its height."""
    return Text(words, style=style, no_wrap=True, overflow="ellipsis")


def _time(state: SearchState, elapsed: float) -> RenderableType:
    if not state.limit:
        return Text(seconds_in_words(elapsed))
    left = state.limit - elapsed
    words = f"{seconds_in_words(left)} left of" if left > 0 else "over, ending what runs:"
    row = Table.grid(padding=(0, 1))
    row.add_row(ProgressBar(state.limit, min(elapsed, state.limit), width=16), _line(f"{words} {_limit(state.limit)}"))
    return row


def _limit(seconds: float) -> str:
    """Return a limit without parts that are nothing: "10 min" for 600."""
    return f"{seconds / 60:g} min" if seconds >= 60 and seconds % 60 == 0 else seconds_in_words(seconds)


def _numbers(best: BestSoFar, metric: str) -> tuple[str, str]:
    """Return size and time of the best, and its drop; what was not measured is left out."""
    sizes = f"{bytes_in_words(best.bytes)} ({ratio_in_words(best.size_ratio)} smaller)"
    if best.latency_ms is not None:
        faster = f" ({ratio_in_words(best.speedup)} faster)" if best.speedup is not None else ""
        sizes += f", {milliseconds_in_words(best.latency_ms)}{faster}"
    if best.drop is None:
        return sizes, ""
    name = f"{metric_in_words(metric)} drop" if metric else "drop"
    return sizes, f"{name} {signed(best.drop.value)} [{signed(best.drop.low)}, {signed(best.drop.high)}]"
