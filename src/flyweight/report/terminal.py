"""The same result as a table in a terminal, and as plain text for `print(result)`."""

import io

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from flyweight.report.data import ReportData
from flyweight.report.verdict import Tone, comparison, judge

_STYLES: dict[Tone, str] = {"good": "green", "bad": "red", "plain": ""}


def render_table(data: ReportData) -> RenderableType:
    """Return a rich renderable: verdict, before/after lines, engine, what was skipped, where to look next."""
    verdict = judge(data)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column(Text(data.name), no_wrap=True)
    for heading in ("before", "after", "change"):
        table.add_column(heading, justify="right" if heading != "change" else "left")
    for line in comparison(data):
        note = f"  ({line.note})" if line.note else ""
        table.add_row(
            Text(line.what), Text(line.before), Text(line.after), Text(line.change + note, style=_STYLES[line.tone])
        )
    return Group(Text(verdict.sentence, style=_STYLES[verdict.tone]), Text(""), table, *_footer(data))


def render_text(data: ReportData, width: int = 100) -> str:
    """Return the table as plain text without colours, at most `width` columns wide."""
    out = io.StringIO()
    Console(file=out, width=width, color_system=None, force_terminal=False, highlight=False).print(render_table(data))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _footer(data: ReportData) -> list[Text]:
    lines = [Text("")]
    if data.engine:
        lines.append(Text(f"Engine: {data.engine}"))
    if data.skipped:
        lines.append(Text(f"Left as it was or not counted: {len(data.skipped)}, as {data.skipped[0]}"))
    lines += [Text(f"{'Next: ' if place == 0 else '      '}{hint}") for place, hint in enumerate(data.look_next)]
    return lines if len(lines) > 1 else []
