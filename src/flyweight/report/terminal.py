"""The same result as a table in a terminal, and as plain text for `print(result)`."""

import io

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from flyweight.report.data import ReportData
from flyweight.report.search_table import render_search
from flyweight.report.verdict import Line, Tone, comparison, judge

_STYLES: dict[Tone, str] = {"good": "green", "bad": "red", "plain": ""}


def render_table(data: ReportData) -> RenderableType:
    """Return a rich renderable: verdict, before/after lines, search, engine, what was skipped, where to look next."""
    verdict = judge(data)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("", no_wrap=True)
    for heading in ("before", "after", "change"):
        table.add_column(heading, justify="right" if heading != "change" else "left")
    for line in comparison(data):
        change = Text(_short(line), style=_STYLES[line.tone])
        table.add_row(Text(line.what), Text(line.before), Text(line.after), change)
    sentence = Text(verdict.sentence, style=_STYLES[verdict.tone])
    head = (Text(data.name, style="bold"), sentence, Text(""), table)
    return Group(*head, *render_search(data), *_footer(data))


def render_text(data: ReportData, width: int = 100) -> str:
    """Return the table as plain text without colours, at most `width` columns wide."""
    out = io.StringIO()
    Console(file=out, width=width, color_system=None, force_terminal=False, highlight=False).print(render_table(data))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _short(line: Line) -> str:
    """Return a change without its margin, which the sentence above names, so that the table fits 80 columns."""
    return f"{line.change} ({line.note})" if line.note and not line.note.startswith("allowed ") else line.change


def _footer(data: ReportData) -> list[Text]:
    lines = [Text("")]
    if data.engine:
        lines.append(Text(f"Engine: {data.engine}"))
    if data.hoisted:
        lines.append(Text(data.hoisted))
    if data.limit:
        lines.append(Text(f"Machine's limits: {data.limit}"))
    if data.skipped:
        lines.append(Text(f"Left as it was or not counted: {len(data.skipped)}, as {data.skipped[0]}"))
    for place, hint in enumerate(data.look_next):  # commands and paths are copied, so they are not broken
        lines.append(Text(("Next: " if place == 0 else "      ") + hint, no_wrap=True, overflow="ignore"))
    return lines if len(lines) > 1 else []
