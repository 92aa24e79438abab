"""Progress in the terminal: one line a stage, with the time left."""

import time

from rich.console import Console
from rich.progress import Progress

from flyweight.cli.live import SearchLines, SearchPanel, trials_in_words
from flyweight.cli.stage_bar import move, stage_bar
from flyweight.report.words import seconds_in_words
from flyweight.task.progress import SearchState

out = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


class TerminalDisplay:
    """Shows stages on a console, and a search in a panel; where it is no terminal, a line for what is finished."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress: Progress | None = None
        self._search: SearchPanel | SearchLines | None = None
        self._words = ""
        self._started = 0.0

    def begin(self, words: str, total: int | None, seconds: float | None) -> None:
        """Start a line; within a search, a line of its panel."""
        if self._search is not None:
            self._search.begin(words, total, seconds)
            return
        self._words, self._started = words, time.monotonic()
        if self.console.is_terminal:
            self._progress = stage_bar(self.console, words, total, seconds)
            self._progress.start()

    def advance(self, units: int) -> None:
        """Move the bar."""
        if self._search is not None:
            self._search.advance(units)
        elif self._progress is not None:
            move(self._progress, units)

    def end(self) -> None:
        """Replace the bar by a line that stays; a search gets one for all its stages."""
        if self._search is not None:
            self._search.end()
        elif self._words:
            self.close()
            self._stay(f"{self._words}: {time.monotonic() - self._started:.1f} s")

    def watch(self, state: SearchState | None) -> None:
        """Show where a search stands; once it is over, a line stays of it."""
        if state is None:
            ended = self._search
            self.close()
            if ended is not None:
                seconds = seconds_in_words(time.monotonic() - self._started)
                self._stay(f"Searching ({trials_in_words(ended.state)}): {seconds}")
        elif self._search is not None:
            self._search.show(state)
        else:
            self.close()
            self._words, self._started = "", time.monotonic() - state.elapsed
            self._search = (SearchPanel if self.console.is_terminal else SearchLines)(self.console, state)

    def close(self) -> None:
        """Take down bar and panel; the cursor of a terminal is hidden as long as one stands."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        if self._search is not None:
            self._search.close()
            self._search = None

    def say(self, words: str) -> None:
        """Print a line above the bar."""
        self.console.print(words, markup=False)

    def _stay(self, words: str) -> None:
        self.console.print(words, style="dim", markup=False, highlight=False)


class ZooProgress:
    """The zoo's way of telling how far it is, on a display."""

    def __init__(self, display: TerminalDisplay) -> None:
        self._display = display
        self._label = ""
        self._done = 0

    def __call__(self, label: str, done: int, total: int) -> None:
        """Show that `done` of `total` units of the work are done."""
        if label != self._label:
            if self._label:
                self._display.end()
            self._label, self._done = label, 0
            self._display.begin(label, total, None)
        self._display.advance(done - self._done)
        self._done = done
        if done >= total:
            self._display.end()
            self._label = ""
