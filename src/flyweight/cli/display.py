"""Progress in the terminal: one line a stage, with the time left."""

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text


class _TimeLeft(ProgressColumn):
    """Time left by units done, or by the seconds a stage usually takes."""

    def render(self, task: Task) -> Text:
        if task.finished:
            return Text(f"{task.finished_time or 0:.1f} s")
        elapsed = task.elapsed or 0.0
        usual = task.fields.get("seconds")
        left = task.time_remaining if task.completed else None
        if left is None and usual is not None:
            left = max(usual - elapsed, 0.0)
        return Text(f"{elapsed:.0f} s, about {left:.0f} s left" if left is not None else f"{elapsed:.0f} s")


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
        columns = (SpinnerColumn(finished_text="-"), TextColumn("{task.description}"), BarColumn(24), _TimeLeft())
        self._progress = Progress(*columns, console=self.console, transient=True)
        self._progress.add_task(words, total=total, seconds=seconds)
        self._progress.start()

    def advance(self, units: int) -> None:
        """Move the bar."""
        if self._progress is not None:
            self._progress.advance(self._progress.task_ids[0], units)

    def end(self) -> None:
        """Replace the bar by a line that stays."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        self.console.print(f"{self._words}: {time.monotonic() - self._started:.1f} s", style="dim", highlight=False)


class ZooProgress:
    """The zoo's way of telling how far it is, on a display."""

    def __init__(self, display: TerminalDisplay) -> None:
        self._display = display
        self._label = ""
        self._done = 0

    def __call__(self, label: str, done: int, total: int) -> None:
        """Show that `done` of `total` units of the work are done."""
        if label != self._label:
            self._label, self._done = label, 0
            self._display.begin(label, total, None)
        self._display.advance(done - self._done)
        self._done = done
        if done >= total:
            self._display.end()
            self._label = ""
