"""A search in the terminal: its recipe, and what else lies on the front."""

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from flyweight.report.data import ReportData
from flyweight.report.front import best_in_words, front_of, pick_command
from flyweight.report.search_data import SearchTold, TriedRecipe
from flyweight.report.words import bytes_in_words, milliseconds_in_words, signed

#: Trials of the front that are listed: the chosen one and its neighbours in size; the page has all.
LISTED = 7


def render_search(data: ReportData) -> list[RenderableType]:
    """Return recipe, front and the command that takes another trial; nothing where the steps were given."""
    search = data.search
    if search is None:
        return []
    ended = f" The search ended because {search.stopped}." if search.stopped else ""
    lines: list[RenderableType] = [Text(""), Text(best_in_words(search) + ended)]
    recipe = Table.grid(padding=(0, 1))
    for place, sentence in enumerate(search.recipe, 1):
        recipe.add_row(Text(f"  {place}."), Text(sentence))
    lines += [recipe] if search.recipe else []
    front = front_of(search)
    if len(front) > 1:
        lines += [Text(""), _table(search, front)]
        command = pick_command(search)
        if command:  # copied, so not broken
            lines.append(Text(f"Take another: {command}", no_wrap=True, overflow="ignore"))
    return lines


def _table(search: SearchTold, front: list[TriedRecipe]) -> Table:
    """Return the chosen trial and its neighbours on the front."""
    place = next((place for place, trial in enumerate(front) if trial.chosen), 0)
    first = max(0, min(place - LISTED // 2, len(front) - LISTED))
    shown = front[first : first + LISTED]
    title = f"on the front, {len(shown)} of {len(front)}" if len(shown) < len(front) else "on the front"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("no.", justify="right", no_wrap=True)
    table.add_column(title)
    for heading in ("size", "time", "drop", "at most"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("inside", no_wrap=True)
    for trial in shown:
        # Only the recipe may give way where the terminal is narrow.
        words = Text(trial.words, no_wrap=True, overflow="ellipsis")
        number = f"> {trial.number}" if trial.chosen else str(trial.number)
        inside = Text("yes", style="green") if trial.inside else Text("no", style="red")
        table.add_row(Text(number), words, *map(Text, _numbers(trial)), inside, style="bold" if trial.chosen else "")
    return table


def _numbers(trial: TriedRecipe) -> tuple[str, str, str, str]:
    """Return size, time, drop and its interval's bad end; "-" where something was not measured."""
    size = "-" if trial.bytes is None else bytes_in_words(trial.bytes)
    time = "-" if trial.latency_ms is None else milliseconds_in_words(trial.latency_ms)
    return (size, time, *(("-", "-") if trial.drop is None else (signed(trial.drop.value), signed(trial.drop.high))))
