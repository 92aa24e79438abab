"""The bar of one stage of work, with the time left; it stands alone or in the panel of a search."""

from rich.console import Console
from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.progress_bar import ProgressBar
from rich.table import Column
from rich.text import Text


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


def stage_bar(console: Console, words: str, total: int | None, seconds: float | None) -> Progress:
    """Return the bar of a stage that begins now, not yet shown; see `flyweight.task.progress.stage`."""
    one_line = Column(no_wrap=True, overflow="ellipsis")
    columns = (SpinnerColumn(), TextColumn("{task.description}", table_column=one_line), _Bar(), _TimeLeft())
    bar = Progress(*columns, console=console, transient=True)
    bar.add_task(words, total=total, seconds=seconds, moved=0.0)
    return bar


def move(bar: Progress, units: int) -> None:
    """Say that so many units more of the bar's stage are done."""
    task = bar.tasks[0]
    bar.update(task.id, advance=units, moved=task.elapsed or 0.0)
