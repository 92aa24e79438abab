"""The verb `profile`: where bytes and time go, and what a request computes more than once."""

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from flyweight.cli.display import TerminalDisplay, ZooProgress, errors, out
from flyweight.cli.stopping import stoppable

if TYPE_CHECKING:
    from flyweight.planning.profile import Profile, Repeated
    from flyweight.rewrite.apply_rules import Done

#: Modules that are listed; the rest are added up.
LISTED = 12


def profile(
    task: Annotated[str, typer.Argument(help="path/to/file.py:function that returns a Task, or a name of the zoo")],
    candidates: Annotated[int | None, typer.Option(help="candidates of the timed request; 500 otherwise")] = None,
    threads: Annotated[int | None, typer.Option(help="threads of one call; every core otherwise")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="all of it as JSON")] = False,
) -> None:
    """Show where a model's bytes and time go, and what of it a request computes more than once."""
    display = TerminalDisplay(errors)
    try:
        with stoppable():
            found = _measured(task, candidates, threads, display)
    finally:
        display.close()
    if as_json:
        sys.stdout.write(json.dumps(asdict(found), indent=2) + "\n")
        return
    out.print(render(found))


def _measured(task: str, candidates: int | None, threads: int | None, display: TerminalDisplay) -> "Profile":
    from flyweight.cli.task_source import load_task
    from flyweight.planning.profile import profile as measure
    from flyweight.task.progress import shown_on

    source = load_task(task, ZooProgress(display))
    with shown_on(display):
        return measure(source, rows=candidates, threads=threads)


def render(found: "Profile") -> RenderableType:
    """Return the profile as tables and sentences."""
    from flyweight.report.words import bytes_in_words, count_in_words

    head = f"{found.name}: {bytes_in_words(found.bytes)}, {count_in_words(found.macs)} multiply-adds a row"
    blank = Text("")
    lines: list[RenderableType] = [Text(head, style="bold"), blank, _parts(found), blank, _times(found), blank]
    if found.roofline is not None:
        lines.append(Text(f"The quickest: {found.roofline.words}"))
    if found.repeated is not None:
        lines.append(_repeated(found.repeated))
    lines += [Text(f"Not looked at: {one}") for one in found.skipped if one.step == "rewrite"]
    lines += [Text(""), *(Text(one, style="green") for one in found.advice)]
    return Group(*lines)


def _parts(found: "Profile") -> Table:
    from flyweight.report.words import bytes_in_words, count_in_words

    table = Table("module", "", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in ("bytes", "share", "multiply-adds", "share"):
        table.add_column(heading, justify="right")
    by_share = sorted(found.parts, key=lambda one: -(one.bytes / max(found.bytes, 1) + one.macs / max(found.macs, 1)))
    shown, rest = by_share[:LISTED], by_share[LISTED:]
    rows = [(one.name or "(itself)", one.kind, one.bytes, one.macs) for one in shown]
    if rest:
        rows.append((f"{len(rest)} others", "", sum(one.bytes for one in rest), sum(one.macs for one in rest)))
    for name, kind, size, macs in rows:
        table.add_row(
            Text(name), Text(kind), bytes_in_words(size), f"{size / max(found.bytes, 1):.0%}",
            count_in_words(macs) if macs else "-", f"{macs / max(found.macs, 1):.0%}" if macs else "",
        )  # fmt: skip
    return table


def _times(found: "Profile") -> Table:
    table = Table(f"one request of {found.rows:,}", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in ("p50, ms", "p95", "p99"):
        table.add_column(heading, justify="right")
    for name, time in sorted(found.latencies.items(), key=lambda one: one[1].p50):
        table.add_row(Text(name), f"{time.p50:.2f}", f"{time.p95:.2f}", f"{time.p99:.2f}")
    return table


def _repeated(found: "Repeated") -> RenderableType:
    share = found.request_only / found.row if found.row else 0.0
    lines = [
        f"Computed again for each candidate: {share:.0%} of a candidate's work reads the request alone; with layers "
        f"that read both sides split, {found.saved:.0%} is done once.",
        f"Rewritten, a request costs {found.once:,} multiply-adds, and each candidate {found.candidate:,} instead of "
        f"{found.row:,}.",
        *(f"  done: {_done(one)}" for one in found.done if one.times),
        *(f"  refused: {one}" for one in found.refused),
        *(f"  undone: {one}" for one in found.undone),
    ]
    return Text("\n".join(["", *lines]))


def _done(one: "Done") -> str:
    """Say what a rule did: "split linear, 1 x in mlp.0"; of operators that moved, how many."""
    from flyweight.report.words import REQUEST_ONLY, operators_in_words

    if one.rule == REQUEST_ONLY:
        return f"{operators_in_words(one.times)} once for each request"
    return f"{one.rule}, {one.times} x{_where(one.where)}"


def _where(modules: tuple[str, ...]) -> str:
    named = [one for one in modules if one]
    return f" in {', '.join(named[:4])}{' ...' if len(named) > 4 else ''}" if named else ""
