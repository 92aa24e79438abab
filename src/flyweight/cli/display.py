"""Progress in the terminal: one line a stage, with the time left."""

import time

from rich.console import Console
from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.progress_bar import ProgressBar
from rich.table import Column
from rich.text import Text

out = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


class _Bar(ProgressColumn):
    """Units done of all, or seconds passed of those that a stage usually takes; empty where neither is known."""

    def render(self, task: Task) -> ProgressBar:
        total, done = task.total, task.completed
        if total is None:
            usual = task.fields["seconds"] or 0.0
            total, done = max(usual, 1.0), min(task.elapsed or 0.0, 0.95 * usual)
        return ProgressBar(total, done, width=12)


class _TimeLeft(ProgressColumn):
    """Time left by units done, or by the seconds that a stage usually takes; time passed where neither tells."""

    def render(self, task: Task) -> Text:
        elapsed, total = task.elapsed or 0.0, task.fields["seconds"] or 0.0
        if task.total and task.completed:
            total = task.fields["moved"] * task.total / task.completed  # at the pace until the last unit was done
        left = total - elapsed
        return Text(f"about {left:.0f} s left" if left > 0 else f"{elapsed:.0f} s", no_wrap=True)


class TerminalDisplay:
    """Shows stages on a console; where it is no terminal, a line for each finished stage."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress: Progress | None = None
        self._words = ""
        self._started = 0.0

    def begin(self, words: str, total: int | None, seconds: float | None) -> None:
        """Start a line."""
        self._words, self._started = words, time.monotonic()
        if not self.console.is_terminal:
            return
        one_line = Column(no_wrap=True, overflow="ellipsis")
        columns = (SpinnerColumn(), TextColumn("{task.description}", table_column=one_line), _Bar(), _TimeLeft())
        self._progress = Progress(*columns, console=self.console, transient=True)
        self._progress.add_task(words, total=total, seconds=seconds, moved=0.0)
        self._progress.start()

    def advance(self, units: int) -> None:
        """Move the bar."""
        if self._progress is not None:
            task = self._progress.tasks[0]
            self._progress.update(task.id, advance=units, moved=task.elapsed or 0.0)

    def end(self) -> None:
        """Replace the bar by a line that stays."""
        self.close()
        self.console.print(f"{self._words}: {time.monotonic() - self._started:.1f} s", style="dim", highlight=False)

    def close(self) -> None:
        """Take down the bar; the cursor of a terminal is hidden as long as it stands."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def say(self, words: str) -> None:
        """Print a line above the bar."""
        self.console.print(words, markup=False)


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
